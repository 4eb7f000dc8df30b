"""What the driver has read and other processes need: it travels through Ray's object store.

Only the driver reads data, tokenizer and model. Ray copies an object to each node once, and the
processes of a node share that copy: arrays in it are not copied again.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import ray

from prefix_rft_rllib.envs.problems import ProblemSet, receive_problem_set


class SharedInputs:
    """Handle of problems, tokenizer, model configuration and initial weights in the object store.

    It travels in the config, which is copied and pickled often: a few hundred bytes. The objects
    live as long as the process that put them, so a restarted env runner finds them again. A
    checkpoint holds None instead: whoever restores reads the files anew.

    Args:
        model_path: The directory that the model was read from, or its name and commit.
        problem_sets: `ProblemSet`s: the run's own, and those of evaluations; none if no remote env
            runner needs them.
        model_config: The model's configuration.
        weights: `SentWeights`; None if no remote learner needs them.
        eos_token_ids: The end tokens that the model's files name.
    """

    def __init__(
        self,
        model_path: str,
        problem_sets: "tuple[ray.ObjectRef[ProblemSet], ...]",
        model_config: "ray.ObjectRef[Any]",
        weights: "ray.ObjectRef[Any] | None",
        eos_token_ids: tuple[int, ...],
    ) -> None:
        self._state = (model_path, problem_sets, model_config, weights, eos_token_ids)

    def __deepcopy__(self, memo: dict[int, Any]) -> "SharedInputs":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (SharedInputs, self._state) if _is_sent_by_ray() else (_nothing, ())

    def receive_problem_sets(self) -> None:
        """Let this process's environments use the shared problems and tokenizer."""
        assert self._state[1], "there are remote env runners"
        for problem_set in self._state[1]:
            receive_problem_set(ray.get(problem_set))

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


def _is_sent_by_ray() -> bool:
    """Whether Ray pickles an argument or an object: it then follows the references inside."""
    context = ray._private.worker.global_worker.get_serialization_context()
    return context.is_in_band_serialization()


def _nothing() -> None:
    """What is left of a handle outside of Ray."""
