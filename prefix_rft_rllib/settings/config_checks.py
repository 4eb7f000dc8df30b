"""What `PrefixRFTConfig.validate` checks: settings and combinations, without data or model."""

from __future__ import annotations

import gymnasium as gym

from prefix_rft_rllib.basics.ranges import mapping
from prefix_rft_rllib.core.losses import DEFAULT_CLIP
from prefix_rft_rllib.core.surrogates import NoClip, PPOClip
from prefix_rft_rllib.engines.sampling_options import refuse_here
from prefix_rft_rllib.methods import Method
from prefix_rft_rllib.models.shared_attention import SHARING_ATTENTION
from prefix_rft_rllib.rollouts.weight_transfer_choice import planned_transfer
from prefix_rft_rllib.settings.evaluation_checks import check_sets
from prefix_rft_rllib.settings.gpu_shares import check_gpu_settings
from prefix_rft_rllib.settings.settings import DECLARATIONS, Settings


def check_ranges(config: Settings) -> None:
    """Check every declared setting by itself, and that `env_config` has names.

    Args:
        config: The settings.

    Raises:
        ValueError: Naming the setting, its value and what is allowed.
    """
    ranges = {name: declaration.allowed for name, declaration in DECLARATIONS.items()}
    for name, allowed in {**ranges, "env_config": mapping("settings of the environment")}.items():
        config.check_value(f"`{name}`", getattr(config, name), allowed)


def check_config(config: Settings) -> None:
    """Check all settings that can be checked without data, model or tokenizer.

    Args:
        config: The settings, each in its range (`check_ranges`).

    Raises:
        ValueError: Naming the setting, its value, what is allowed and what to try.
    """
    if not config.in_evaluation:  # RLlib derives evaluation configs itself, greedy ones too
        _check_staleness(config)
    check_gpu_settings(config)
    _check_sources(config)
    _check_combinations(config)
    refuse_here(config.engine_config)
    _check_lora(config)
    _check_sharing(config)
    _check_engine_process(config)
    _check_weight_transfer(config)
    check_sets(config)
    _check_checkpoints(config)


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
    lora_config(config.lora)
    if config.parallelism == "fsdp":
        config._value_error(
            "`lora` with `parallelism='fsdp'` is not supported: use 'ddp'. Adapters need little "
            "memory for gradients and optimizer state; the base model must fit one learner."
        )


def _check_sharing(config: Settings) -> None:
    """Refuse shared prompts with settings under which rows are computed alone in any case."""
    if not config.share_prompts:
        return
    if config.packing:
        config._value_error(
            "`share_prompts=True` with `packing=True`: packed rows are computed one by one. Leave "
            "`packing` out; rows that share prompts have no padding either."
        )
    if config.attn_implementation not in (None, SHARING_ATTENTION):
        config._value_error(
            f"`share_prompts=True` with `attn_implementation={config.attn_implementation!r}`: this "
            f"attention computes rows one by one. Use {SHARING_ATTENTION!r}, or leave "
            "`share_prompts` out."
        )


def _check_staleness(config: Settings) -> None:
    staleness = config.max_weight_staleness
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


def _check_checkpoints(config: Settings) -> None:
    every, kept = config.every, config.keep_every
    if every and kept and kept % every:
        config._value_error(
            f"`keep_every` ({kept}) must be a multiple of `every` ({every}): checkpoints of other "
            f"iterations are not written. Try {every * max(1, round(kept / every))}."
        )
