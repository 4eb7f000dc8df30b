"""What is checked with data, model and tokenizer at hand, before any actor starts."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefix_rft_rllib.basics.hub_models import model_directory
from prefix_rft_rllib.core.losses import DEFAULT_CLIP
from prefix_rft_rllib.core.surrogates import NoClip
from prefix_rft_rllib.engines import check_engine_config
from prefix_rft_rllib.engines.sampling_options import unused_settings
from prefix_rft_rllib.envs.problems import Problem, ProblemSet
from prefix_rft_rllib.envs.prompts.end_tokens import generation_settings
from prefix_rft_rllib.envs.token_env import make_token_env
from prefix_rft_rllib.methods import Method
from prefix_rft_rllib.settings.settings import Settings

logger = logging.getLogger(__name__)


def check_setup(config: Settings, method: Method, problem_set: ProblemSet) -> None:
    """Check that data, model, tokenizer and method fit together.

    Args:
        config: Validated settings.
        method: The run's method.
        problem_set: The loaded problems.

    Raises:
        ValueError: Naming what does not fit and what to try.
    """
    check_model_and_engine(config, problem_set)
    _say_which_tokens_are_compared(config, method)
    _check_env(config, problem_set)
    if NoClip() in method.surrogates and config.ppo_clip != DEFAULT_CLIP:
        logger.warning(
            "Method %r trains without a clip: `clip_param`, `clip_param_high` and `dual_clip` have "
            "no effect on it. If its settings (`method_config`) have `clip`, True switches it on.",
            method.name,
        )
    assert problem_set.grader is not None  # made here, so that a wrong verifier is found here
    for stage in method.all_stages:
        _check_problems(config, stage.method, problem_set)
    fewest = min(stage.method.num_rollouts(config.group_size) for stage in method.all_stages)
    rows = config.num_problems_per_minibatch * max(1, fewest)
    if rows < config.num_learners:
        raise ValueError(
            f"A minibatch has {rows} rows for {config.num_learners} learners: every learner needs "
            "one. Raise `num_problems_per_minibatch` or lower `num_learners`."
        )


def check_model_and_engine(config: Settings, problem_set: ProblemSet) -> None:
    """Check that model, tokenizer and engine fit together; all that sampling alone needs.

    Args:
        config: Validated settings.
        problem_set: The loaded problems.

    Raises:
        ValueError: Naming what does not fit and what to try.
    """
    check_model(config, problem_set)
    _say_how_tokens_are_drawn(config)
    check_engine_config(
        config.engine, config.engine_config, has_gpu=config.num_gpus_per_env_runner > 0
    )


def _check_env(config: Settings, problem_set: ProblemSet) -> None:
    """Make one environment, and see that it reads the settings that the planner reads."""
    env: Any = make_token_env(config.env, config.token_env_config())
    settings = env.unwrapped.problem_set.settings
    env.close()
    for name, value in vars(settings).items():
        planned = getattr(problem_set.settings, name)
        if value != planned:
            raise ValueError(
                f"The environment {config.env!r} sets {name!r} to {value!r} by itself, but "
                f"prefixes and the loss are planned with {planned!r}. Set it in env_config, or "
                "register the environment with it (gym.register(..., kwargs=...))."
            )


def check_model(config: Settings, problem_set: ProblemSet) -> None:
    """Check that the model has weights, the tokenizer's ids and room for prompt and response.

    Args:
        config: Validated settings.
        problem_set: The loaded problems.

    Raises:
        ValueError: Naming what does not fit and what to try.
    """
    model_config = config.load_model_config().get_text_config(decoder=True)
    directory = Path(model_directory(config.model_source))
    if not any(directory.glob("*.safetensors")):
        pickled = any(any(directory.glob(pattern)) for pattern in ("*.bin", "*.pt", "*.pth"))
        raise ValueError(
            f"`model_path` ({config.model_source!r}) holds a configuration but "
            + (
                "pickled weights only, which could run code: *.safetensors are loaded, nothing "
                "else. Load the model in transformers and `save_pretrained` it again."
                if pickled
                else "no weights (*.safetensors or *.bin). Give the directory "
                "`save_pretrained` wrote, as *.safetensors."
            )
        )
    _check_shards(directory, config.model_source)
    largest_id = max(problem_set.tokenizer.get_vocab().values())
    if largest_id >= model_config.vocab_size:
        raise ValueError(
            f"The tokenizer {problem_set.settings.tokenizer!r} has ids up to {largest_id}, the "
            f"model only {model_config.vocab_size} tokens: they do not belong together. Set "
            "env_config['tokenizer'] to the model's own, or leave it out."
        )
    settings = problem_set.settings
    longest = settings.max_prompt_tokens + settings.max_response_tokens
    context = getattr(model_config, "max_position_embeddings", None)
    if context is not None and longest > context:
        raise ValueError(
            f"`max_prompt_tokens` ({settings.max_prompt_tokens}) + `max_response_tokens` "
            f"({settings.max_response_tokens}) = {longest} exceeds the context of {context} "
            "tokens of the model. Lower one of them in env_config, or extend the model's context."
        )


def _check_shards(directory: Path, source: str) -> None:
    """Check that every file is there which the indices of weights in several files name."""
    for index in directory.glob("*.safetensors.index.json"):
        try:
            named = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{index} is no index of weights ({error!r}).") from error
        missing = sorted(name for name in named if not (directory / name).exists())
        if missing:
            raise ValueError(
                f"`model_path` ({source!r}) lacks {len(missing)} of the {len(named)} files that "
                f"{index.name} names, {missing[0]!r} first: saving or fetching it was not "
                "finished. Copy or fetch the model again."
            )


def _say_how_tokens_are_drawn(config: Settings) -> None:
    """Warn where rollouts are drawn otherwise than a user may think."""
    unused = unused_settings(generation_settings(model_directory(config.model_source)))
    if unused:
        logger.warning(
            "The generation_config.json of the model sets %s. Rollouts do not follow it: they are "
            "drawn with temperature %g and top_p %g (config.env_runners). An exported model keeps "
            "the file.",
            ", ".join(f"{name}={value!r}" for name, value in unused.items()),
            config.temperature,
            config.top_p,
        )


def _say_which_tokens_are_compared(config: Settings, method: Method) -> None:
    """Warn where the loss compares other log-probabilities than rollouts are drawn from."""
    if config.top_p < 1 and any(stage.method.has_rollouts for stage in method.all_stages):
        logger.warning(
            "`top_p` is %g: rollouts come from the nucleus, while the loss compares "
            "log-probabilities of the whole distribution (docs/engines.md). Use 1 in training "
            "unless you want that.",
            config.top_p,
        )


def trainable_problems(method: Method, problem_set: ProblemSet) -> Sequence[Problem]:
    """The problems that a method without stages trains on.

    Args:
        method: The method.
        problem_set: The loaded problems.

    Returns:
        Those of the training split, for a method without rollouts only those with a demonstration.
    """
    return problem_set.train if method.has_rollouts else problem_set.train_with_demonstration


def _check_problems(config: Settings, method: Method, problem_set: ProblemSet) -> None:
    """Check that a method without stages finds what it trains on."""
    problems = trainable_problems(method, problem_set)
    if not problems:
        needed = "a demonstration that fits `max_response_tokens`" if problem_set.train else "data"
        raise ValueError(
            f"No training problem is left for method {method.name!r}: each needs {needed}. "
            f"Counts of the data: {problem_set.counts}."
        )
    members = range(method.num_rollouts(config.group_size))
    uses_prefixes = any(method.prefix_sampler.draw_member(m) is not None for m in members)
    is_used = uses_prefixes or method.needs_demonstrations
    if is_used and not any(problem.demonstration_ids for problem in problems):
        what = "starts rollouts from" if uses_prefixes else "trains on"
        raise ValueError(
            f"Method {method.name!r} {what} demonstrations, but none of the {len(problems)} "
            "training problems has one that fits `max_response_tokens`. Use method='rft', give "
            "demonstrations, or raise `max_response_tokens` or `demonstration_fraction` in "
            "env_config."
        )
    step = method.after_step
    if step is not None:
        num_usable = sum(bool(problem.demonstration_ids) for problem in problems)
        least = max(1, config.num_learners)
        if not least <= step.buffer_size <= num_usable:
            raise ValueError(
                f"`buffer_size` ({step.buffer_size}) of method {method.name!r} must be from "
                f"{least} (one row per learner) to {num_usable} (training problems with a "
                "demonstration), or no step on failed problems can ever be taken."
            )
