"""Puts what the driver has read, and other processes need, into Ray's object store."""

from typing import Any

import ray

from prefix_rft_rllib.envs.problems import ProblemSet
from prefix_rft_rllib.rollouts.shared_inputs import SharedInputs
from prefix_rft_rllib.settings.settings import Settings


def with_shared_inputs(config: Settings, *problem_sets: ProblemSet) -> Settings:
    """Put what remote env runners and learners need into the object store.

    Args:
        config: The run's settings; not changed.
        *problem_sets: The loaded problems: the run's own, and those of evaluations.

    Returns:
        A frozen copy of the settings with the handle; the settings themselves if everything runs in
        this process.

    Raises:
        ValueError: If the tokenizer cannot be sent, or the model's directory lacks weights.
    """
    num_env_runners = config.num_env_runners + config.evaluation_num_env_runners
    if not num_env_runners and not config.num_learners:
        return config
    model_path = config.model_source
    weights = _put_weights(model_path) if config.num_learners else None
    problems = tuple(map(_put_problem_set, problem_sets)) if num_env_runners else ()
    model_config = ray.put(config.load_model_config())
    shared = config.copy(copy_frozen=False)
    shared.shared_inputs = SharedInputs(
        model_path, problems, model_config, weights, config.load_eos_token_ids()
    )
    shared.freeze()
    return shared


def _put_problem_set(problem_set: ProblemSet) -> "ray.ObjectRef[ProblemSet]":
    try:
        return ray.put(problem_set)
    except Exception as error:  # whatever a tokenizer of the user's own raises
        raise ValueError(
            f"The tokenizer in {problem_set.settings.tokenizer!r} cannot be sent to env runners "
            f"({type(error).__name__}: {error}). Use a tokenizer with a tokenizer.json, or "
            "num_env_runners=0 and num_learners=0."
        ) from error


def _put_weights(model_path: str) -> "ray.ObjectRef[Any]":
    from prefix_rft_rllib.models.causal_lm import load_lm
    from prefix_rft_rllib.models.sent_weights import SentWeights

    return ray.put(SentWeights.of(load_lm(model_path)))
