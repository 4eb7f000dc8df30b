"""What the driver has read and other processes need: it travels through Ray's object store.

Only the driver reads data, tokenizer and model. Ray copies an object to each node once, and the
processes of a node share that copy: arrays in it are not copied again.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import ray

from prefix_rft_rllib.envs.problems import ProblemSet, receive_problem_set
from prefix_rft_rllib.settings.settings import Settings


class SharedInputs:
    """Handle of problems, tokenizer, model configuration and initial weights in the object store.

    It travels in the config, which is copied and pickled often: a few hundred bytes. The objects
    live as long as the process that put them, so a restarted env runner finds them again. A
    checkpoint holds None instead: whoever restores reads the files anew.

    Args:
        model_path: The directory that the model was read from, or its name and commit.
        problem_set: A `ProblemSet`; None if no remote env runner needs it.
        model_config: The model's configuration.
        weights: `SentWeights`; None if no remote learner needs them.
        eos_token_ids: The end tokens that the model's files name.
    """

    def __init__(
        self,
        model_path: str,
        problem_set: "ray.ObjectRef[ProblemSet] | None",
        model_config: "ray.ObjectRef[Any]",
        weights: "ray.ObjectRef[Any] | None",
        eos_token_ids: tuple[int, ...],
    ) -> None:
        self._state = (model_path, problem_set, model_config, weights, eos_token_ids)

    def __deepcopy__(self, memo: dict[int, Any]) -> "SharedInputs":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (SharedInputs, self._state) if _is_sent_by_ray() else (_nothing, ())

    def receive_problem_set(self) -> None:
        """Let this process's environments use the shared problems and tokenizer."""
        assert self._state[1] is not None, "there are remote env runners"
        receive_problem_set(ray.get(self._state[1]))

    def model_config(self) -> Any:
        """The model's configuration, a copy."""
        return ray.get(self._state[2])

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The end tokens that the model's files name."""
        return self._state[4]

    @contextlib.contextmanager
    def received_weights(self) -> Iterator[None]:
        """Let models be built in this process from the shared weights, while this is open."""
        from prefix_rft_rllib.models.sent_weights import receive_weights

        model_path, _, _, weights, _ = self._state
        if weights is None:
            yield
            return
        with receive_weights(model_path, self.model_config(), ray.get(weights)):
            yield


def with_shared_inputs(config: Settings, problem_set: ProblemSet) -> Settings:
    """Put what remote env runners and learners need into the object store.

    Args:
        config: The run's settings; not changed.
        problem_set: The loaded problems.

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
    problems = _put_problem_set(problem_set) if num_env_runners else None
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


def _is_sent_by_ray() -> bool:
    """Whether Ray pickles an argument or an object: it then follows the references inside."""
    context = ray._private.worker.global_worker.get_serialization_context()
    return context.is_in_band_serialization()


def _nothing() -> None:
    """What is left of a handle outside of Ray."""
