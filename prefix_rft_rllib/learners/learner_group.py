"""RLlib's group of learners, with the calls in which all of them must take part."""

import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.rllib.core import COMPONENT_LEARNER
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.utils.annotations import DeveloperAPI, override
from ray.rllib.utils.typing import StateDict

from prefix_rft_rllib.learners.learner_manager import LearnerManager
from prefix_rft_rllib.processes.places import ActorPlace, place_here

T = TypeVar("T")


@DeveloperAPI
class PrefixRFTLearnerGroup(LearnerGroup):
    """Learners whose state is collected by all of them where they share one model.

    RLlib asks the first learner alone, which then waits for the others for ever. Where one learner
    fails all of them end, and the call raises (`LearnerManager`).
    """

    @override(LearnerGroup)
    def __init__(self, **kwargs: Any) -> None:
        try:
            super().__init__(**kwargs)
            if self.is_remote:
                places = ray.get([w.apply.remote(_place_of) for w in self._workers])
                most = self.config.max_requests_in_flight_per_learner
                self._worker_manager = LearnerManager(self._workers, places, most)
        except BaseException:
            for worker in getattr(self, "_workers", None) or []:
                ray.kill(worker)  # else those that were built keep what they hold
            raise

    def __del__(self) -> None:
        """Shut down, unless the program ends: Ray then ends all actors, and cannot be called."""
        if not sys.is_finalizing():
            super().__del__()

    def first_learner(self, function: Callable[[Learner], T]) -> T:
        """Call a function with the first learner, where that learner is.

        Args:
            function: May read the state of the learner. Where learners share a model all of them
                are called at the same time.

        Returns:
            The first learner's answer.

        Raises:
            Exception: What the function raised.
        """
        is_shared = self.config.parallelism == "fsdp"
        actor_ids = None if is_shared or self.is_local else [0]
        return first_answer(self.foreach_learner(function, remote_actor_ids=actor_ids))

    @override(LearnerGroup)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> StateDict:
        if not self._check_component(COMPONENT_LEARNER, components, not_components):
            return {}
        wanted = self._get_subcomponents(COMPONENT_LEARNER, components)
        unwanted = self._get_subcomponents(COMPONENT_LEARNER, not_components)
        state = self.first_learner(
            lambda learner: learner.get_state(wanted, not_components=unwanted, **kwargs)
        )
        return {COMPONENT_LEARNER: state}

    @override(LearnerGroup)
    def save_to_path(
        self, path: str | Path | None = None, *, state: StateDict | None = None, **kwargs: Any
    ) -> str:
        return super().save_to_path(path, state=state or self.get_state(), **kwargs)


def _place_of(learner: Learner) -> ActorPlace:
    return place_here(f"learner {learner._learner_index}")


def answers_in_order(results: Iterable[Any]) -> list[Any]:
    """What learners answered, the first learner first; an exception may be an answer.

    Args:
        results: What `LearnerGroup.foreach_learner` returned.
    """
    return [result.get() for result in sorted(results, key=lambda r: r.actor_id or 0)]


def first_answer(results: Iterable[Any]) -> Any:
    """What the first learner answered.

    Args:
        results: What `LearnerGroup.foreach_learner` returned.

    Raises:
        Exception: The first that is among the answers of all learners.
    """
    answers = answers_in_order(results)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers[0]
