"""RLlib's calls of remote learners: all of them answer, or all of them end."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.rllib.utils.actor_manager import FaultTolerantActorManager, RemoteCallResults
from ray.rllib.utils.annotations import DeveloperAPI, override

from prefix_rft_rllib.processes.failures import described, has_ended
from prefix_rft_rllib.processes.killing import kill_actors
from prefix_rft_rllib.processes.places import ActorPlace

logger = logging.getLogger(__name__)

GRACE_S = 2.0
"""How long other learners may take to fail of their own, seconds: their errors are told too."""


@DeveloperAPI
class LearnersFailedError(RuntimeError):
    """A learner has failed, so all learners of the run were ended; the text says which and why."""


class LearnerManager(FaultTolerantActorManager):
    """Ends all learners as soon as one fails, and raises what it failed of.

    Learners wait for each other in collectives: one that raises or is killed would leave the others
    waiting until their process group gives up, half an hour by default. RLlib waits for all of them
    and drops failed answers.

    Args:
        learners: Ray's actor handles, in the order of their numbers.
        places: Of each.
        max_in_flight: RLlib's `max_requests_in_flight_per_learner`.
    """

    def __init__(
        self, learners: Sequence[Any], places: Sequence[ActorPlace], max_in_flight: int
    ) -> None:
        super().__init__(list(learners), max_remote_requests_in_flight_per_actor=max_in_flight)
        self._places = dict(enumerate(places))
        self._failure: str | None = None

    @override(FaultTolerantActorManager)
    def _call_actors(self, *args: Any, **kwargs: Any) -> list[Any]:
        if self._failure is not None:
            raise LearnersFailedError(f"The learners of this run have ended. {self._failure}")
        return super()._call_actors(*args, **kwargs)

    @override(FaultTolerantActorManager)
    def _fetch_result(
        self,
        *,
        remote_actor_ids: list[int],
        remote_calls: list[Any],
        tags: list[str],
        timeout_seconds: float | None = None,
        **kwargs: Any,
    ) -> tuple[list[Any], RemoteCallResults]:
        """Take answers as they come.

        Raises:
            LearnersFailedError: As soon as one has failed; all learners have ended then.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        numbers = dict(zip(remote_calls, remote_actor_ids, strict=True))
        fetched, waiting = {}, list(remote_calls)
        while waiting:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=left)
            if not ready:
                break
            _, answers = super()._fetch_result(
                remote_actor_ids=[numbers[ready[0]]],
                remote_calls=ready,
                tags=[tags[remote_calls.index(ready[0])]],
                timeout_seconds=None,
                **kwargs,
            )
            (fetched[ready[0]],) = answers
            if not fetched[ready[0]].ok:
                self._fail(numbers, ready[0], waiting, fetched[ready[0]].get())
        results = RemoteCallResults()
        results.result_or_errors = [fetched[call] for call in remote_calls if call in fetched]
        return [call for call in remote_calls if call in fetched], results

    def _fail(
        self, numbers: Mapping[Any, int], failed: Any, waiting: list[Any], error: BaseException
    ) -> None:
        """Say what has happened, end all learners, raise."""
        errors = {numbers[failed]: error}
        if waiting:
            found, _ = ray.wait(waiting, num_returns=len(waiting), timeout=GRACE_S)
            errors |= {numbers[call]: other for call in found if (other := _error_of(call))}
        lines = described(errors, self._places)
        self._failure = "\n".join(["A learner has failed:", *lines])
        logger.error("%s\nAll %d learners are ended.", self._failure, self.num_actors())
        for number in self.actor_ids():
            self.set_actor_state(number, healthy=False)
        kill_actors(list(self.actors().values()))
        first = min(errors, key=lambda number: not has_ended(errors[number]))
        raise LearnersFailedError(
            f"{self._failure}\nAll learners were ended, and what they have learnt since the newest "
            "checkpoint is lost: start the run again from that."
        ) from errors[first]


def _error_of(call: Any) -> RayError | None:
    try:
        ray.get(call)
    except RayError as error:
        return error
    return None
