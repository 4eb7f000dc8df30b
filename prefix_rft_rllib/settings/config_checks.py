"""What `PrefixRFTConfig.validate` checks: settings and combinations, without data or model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym

from prefix_rft_rllib.core.losses import DEFAULT_CLIP
from prefix_rft_rllib.core.lr_schedules import LR_SCHEDULES
from prefix_rft_rllib.core.surrogates import NoClip, PPOClip
from prefix_rft_rllib.engines import ENGINES
from prefix_rft_rllib.engines.sampling_options import refuse_here
from prefix_rft_rllib.envs.settings import EnvSettings
from prefix_rft_rllib.evaluation.held_out import evaluate_held_out
from prefix_rft_rllib.methods import Method
from prefix_rft_rllib.rollouts.weight_transfer_choice import WEIGHT_TRANSFERS, planned_transfer
from prefix_rft_rllib.settings.gpu_shares import check_gpu_settings
from prefix_rft_rllib.settings.settings import Settings

COMPUTE_DTYPES = ("float32", "bfloat16")
PARALLELISMS = ("ddp", "fsdp")


def check_config(config: Settings) -> None:
    """Check all settings that can be checked without data, model or tokenizer.

    Args:
        config: The settings.

    Raises:
        ValueError: Naming the setting, its value, what is allowed and what to try.
    """
    if not config.in_evaluation:  # RLlib derives evaluation configs itself, greedy ones too
        _check_staleness(config)
    _check_ranges(config)
    _check_names(config)
    check_gpu_settings(config)
    _check_sources(config)
    _check_combinations(config)
    refuse_here(config.engine_config)
    _check_lora(config)
    _check_engine_process(config)
    _check_weight_transfer(config)
    _check_held_out(config)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _at_least_0(value: Any) -> bool:
    return _is_number(value) and 0 <= value < math.inf


def _are_betas(value: Any) -> bool:
    if not isinstance(value, tuple | list) or len(value) != 2:
        return False
    return all(_is_number(beta) and 0 <= beta < 1 for beta in value)


def _check_ranges(config: Settings) -> None:
    whole = {
        "group_size": 1,
        "num_problems_per_iteration": 1,
        "num_problems_per_minibatch": 1,
        "num_epochs": 1,
        "max_tokens_per_microbatch": 1,
        "num_envs_per_env_runner": 1,
        "held_out_num_samples": 1,
        "lr_warmup_steps": 0,
        "max_resampling_rounds": 0,
        "num_logged_groups": 0,
    }
    for name, least in whole.items():
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            config._value_error(
                f"`{name}` must be a whole number of at least {least}, got {value!r}."
            )
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "lr": (
            _at_least_0,
            "a number of at least 0 (`lr_schedule`, `lr_warmup_steps` and `lr_schedule_steps` "
            "change it over optimizer steps)",
        ),
        "temperature": (
            lambda v: _at_least_0(v) and v > 0,
            "above 0 (greedy rollouts of a group are all the same)",
        ),
        "top_p": (lambda v: _at_least_0(v) and 0 < v <= 1, "in (0, 1]"),
        "clip_param": (lambda v: _at_least_0(v) and 0 < v < 1, "in (0, 1)"),
        "clip_param_high": (
            lambda v: v is None or (_at_least_0(v) and v > 0),
            "above 0, or None for `clip_param`",
        ),
        "dual_clip": (lambda v: v is None or (_at_least_0(v) and v > 1), "above 1, or None"),
        "entropy_coeff": (_at_least_0, "a number of at least 0"),
        "kl_coeff": (_at_least_0, "a number of at least 0"),
        "importance_weight_cap": (
            lambda v: v in (None, "auto") or (_at_least_0(v) and v >= 1),
            "at least 1, None for no importance weights, or 'auto'",
        ),
        "weight_decay": (_at_least_0, "a number of at least 0"),
        "grad_clip": (lambda v: v is None or (_at_least_0(v) and v > 0), "above 0, or None"),
        "adam_betas": (_are_betas, "two numbers in [0, 1)"),
        "seed": (
            lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**32,
            "a whole number in [0, 2**32): problems, prefixes and tokens are drawn from it",
        ),
        "sample_timeout_s": (
            lambda v: v is None or (_at_least_0(v) and v > 0),
            "above 0, or None for no limit",
        ),
        "packing": (lambda v: v is None or isinstance(v, bool), "True, False or None"),
        "activation_checkpointing": (lambda v: isinstance(v, bool), "True or False"),
        "placement_timeout_s": (
            lambda v: v is None or _at_least_0(v),
            "a number of seconds, or None to wait without limit",
        ),
        "attn_implementation": (
            lambda v: v is None or isinstance(v, str),
            "a name that transformers knows ('sdpa', 'flash_attention_2'), or None",
        ),
    }
    for name, (is_allowed, allowed) in checks.items():
        value = getattr(config, name)
        if not is_allowed(value):
            config._value_error(f"`{name}` must be {allowed}, got {value!r}.")


def _check_names(config: Settings) -> None:
    for name, value, known in (
        ("engine", config.engine, tuple(ENGINES)),
        ("lr_schedule", config.lr_schedule, LR_SCHEDULES),
        ("compute_dtype", config.compute_dtype, COMPUTE_DTYPES),
        ("parallelism", config.parallelism, PARALLELISMS),
        ("weight_transfer", config.weight_transfer, WEIGHT_TRANSFERS),
    ):
        if value not in known:
            config._value_error(f"Unknown `{name}` {value!r}; known: {', '.join(known)}.")
    for name in ("method_config", "engine_config"):
        value = getattr(config, name)
        if not isinstance(value, Mapping):
            config._value_error(f"`{name}` must be a dict of keyword arguments, got {value!r}.")


def _check_sources(config: Settings) -> None:
    """Check that a model and a known environment are named."""
    if config.model_path is None:
        config._value_error(
            "`model_path` is not set: give the directory of a causal LM and its tokenizer, "
            "config.training(model_path='...')."
        )
    if config.env is None:
        config._value_error(
            "No environment is set: use config.environment('PrefixRFT/Math-v0', "
            "env_config={'data': 'problems.jsonl'})."
        )
    if isinstance(config.env, str) and config.env not in gym.registry:
        known = sorted(name for name in gym.registry if name.startswith("PrefixRFT/"))
        config._value_error(
            f"Unknown environment {config.env!r}. Known ids: {', '.join(known)}. An environment "
            "class (a subclass of TokenEnv) is accepted too, and found by remote env runners."
        )


def _check_combinations(config: Settings) -> None:
    problems, minibatch = config.num_problems_per_iteration, config.num_problems_per_minibatch
    if problems % minibatch:
        divisors = [n for n in range(1, problems + 1) if problems % n == 0]
        nearest = sorted(sorted(divisors, key=lambda n: abs(n - minibatch))[:2])
        config._value_error(
            f"`num_problems_per_minibatch` ({minibatch}) must divide "
            f"`num_problems_per_iteration` ({problems}): a minibatch is made of whole groups. "
            f"Try {' or '.join(map(str, nearest))}."
        )
    if config.lr_schedule == "cosine" and not config.lr_schedule_steps:
        config._value_error(
            "`lr_schedule='cosine'` needs `lr_schedule_steps`: the number of optimizer steps "
            f"until the rate is 0 (iterations * {config.num_minibatches * config.num_epochs} "
            "here)."
        )
    if config.lr_schedule == "constant" and config.lr_schedule_steps:
        config._value_error(
            f"`lr_schedule_steps` ({config.lr_schedule_steps}) has no effect with "
            "`lr_schedule='constant'`. Leave it out, or use 'cosine'."
        )
    method = config.build_method()
    method.check(config.group_size)
    if config.max_resampling_rounds and not method.has_rollouts:
        config._value_error(
            f"`max_resampling_rounds` ({config.max_resampling_rounds}) has no effect: method "
            f"{method.name!r} samples nothing. Leave it at 0."
        )
    _check_bounds(config, method)


def _check_bounds(config: Settings, method: Method) -> None:
    """Refuse bounds that contradict those of the method."""
    own = [surrogate for surrogate in method.surrogates if surrogate != PPOClip()]
    if not own or len(own) < len(method.surrogates) or config.ppo_clip == DEFAULT_CLIP:
        return
    if any(surrogate != NoClip() for surrogate in own):
        config._value_error(
            f"`clip_param` ({config.clip_param}), `clip_param_high` ({config.clip_param_high}) and "
            f"`dual_clip` ({config.dual_clip}) have no effect: method {method.name!r} has bounds "
            f"of its own, {own[0]!r}. Leave them out, and change the method's (`method_config`)."
        )


def _check_lora(config: Settings) -> None:
    from prefix_rft_rllib.models.lora import lora_config

    if config.lora is None:
        return
    if not isinstance(config.lora, Mapping):
        config._value_error(
            f"`lora` must be a dict of keyword arguments of peft's LoraConfig, or None, got "
            f"{config.lora!r}."
        )
    lora_config(config.lora)
    if config.parallelism == "fsdp":
        config._value_error(
            "`lora` with `parallelism='fsdp'` is not supported: use 'ddp'. Adapters need little "
            "memory for gradients and optimizer state; the base model must fit one learner."
        )


def _check_staleness(config: Settings) -> None:
    staleness = config.max_weight_staleness
    if isinstance(staleness, bool) or staleness not in (0, 1):
        config._value_error(
            f"`max_weight_staleness` must be 0 (on-policy) or 1 (the next iteration is sampled "
            f"during the update), got {staleness!r}."
        )
    if staleness == 0:
        return
    if config.num_env_runners == 0:
        config._value_error(
            "`max_weight_staleness=1` samples on env runners while the learners update, but "
            "`num_env_runners` is 0: set config.env_runners(num_env_runners=1) or more, or "
            "`max_weight_staleness=0`."
        )
    if config.engines_sleep:
        config._value_error(
            "`max_weight_staleness=1` samples during the update, while engines with "
            "`enable_sleep_mode=True` sleep. Use one of the two."
        )
    method = config.build_method()
    if not method.has_rollouts:
        config._value_error(
            f"`max_weight_staleness` ({staleness}) has no effect: method {method.name!r} samples "
            "nothing. Leave it at 0."
        )


def _check_engine_process(config: Settings) -> None:
    """Keep vLLM out of the driver: it takes over torch.distributed and threads of its process."""
    if config.engine != "vllm" or config.in_evaluation:
        return
    if config.num_env_runners == 0:
        config._value_error(
            "`engine='vllm'` with `num_env_runners=0` would run vLLM in the driver's process, next "
            "to the learner. Use config.env_runners(num_env_runners=1) or more, or "
            "engine='transformers'."
        )
    uses_rllibs_evaluation = config.custom_evaluation_function is None
    is_evaluated = uses_rllibs_evaluation and config.evaluation_interval
    if is_evaluated and config.evaluation_num_env_runners == 0:
        config._value_error(
            "`engine='vllm'` with RLlib's own evaluation and `evaluation_num_env_runners=0` would "
            "run vLLM in the driver's process. Use "
            "config.evaluation(evaluation_num_env_runners=1) or more."
        )


def _check_weight_transfer(config: Settings) -> None:
    if "weight_transfer" in config.engine_config:
        config._value_error(
            "`weight_transfer` is no option of an engine: use "
            "config.env_runners(weight_transfer=...)."
        )
    planned_transfer(config)


def _check_held_out(config: Settings) -> None:
    settings = EnvSettings.from_config(config.env_settings())
    if config.custom_evaluation_function is not evaluate_held_out:
        return
    if config.evaluation_interval and not settings.held_out_data and not settings.held_out_fraction:
        config._value_error(
            f"`evaluation_interval` ({config.evaluation_interval}) is set, but no problem is "
            "held out: set env_config['held_out_fraction'] or env_config['held_out_data']."
        )
