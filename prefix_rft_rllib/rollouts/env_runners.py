"""The env runners of a run as the driver has them, and what happens when some fail."""

import itertools
import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.actor_manager import FaultTolerantActorManager
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from prefix_rft_rllib.core.prefix_sampling import PlannedRollout
from prefix_rft_rllib.metrics import NUM_ROLLOUTS_SAMPLED_AGAIN
from prefix_rft_rllib.processes.killing import kill_actors
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.dealing import deal
from prefix_rft_rllib.rollouts.failed_env_runners import FailedEnvRunners, place_of
from prefix_rft_rllib.rollouts.sampling import AS_SET, Sampling

logger = logging.getLogger(__name__)

NUM_SAMPLING_ROUNDS = 3
"""How often rollouts lost with a failed env runner are sampled again."""
RESTART_TIMEOUT_S = 180.0
"""How long to wait for a restarted env runner when none is left, seconds."""
SYNC_TIMEOUT_S = 1800.0
"""How long env runners that sample nothing may take for new weights, seconds."""
SILENCE_SAID_S = 600.0
"""How often env runners that have not answered are named, seconds."""

T = TypeVar("T")
Answers = Sequence[tuple[list[SingleAgentEpisode], Any]]
"""What `sample_and_get_metrics` of several env runners returned."""
Round = Callable[[list[PlannedRollout]], Answers]
"""Samples the rollouts that are missing, or some of them."""
_call_numbers = itertools.count()


@dataclass(frozen=True)
class RolloutsInFlight:
    """Planned rollouts that remote env runners sample while the driver does something else.

    Attributes:
        rollouts: The plan.
        sampling: How.
        tag: RLlib's name of these calls.
        runner_ids: RLlib's numbers of the env runners that sample.
    """

    rollouts: list[PlannedRollout]
    sampling: Sampling
    tag: str
    runner_ids: list[int]


class EnvRunners:
    """Samples planned rollouts on the env runners of a run, and replaces those that fail.

    Groups stay whole on one runner, so that their prompt is prefilled once. Rollouts lost with
    a failed runner, or one that does not answer within `sample_timeout_s`, are sampled again on the
    others: draws depend on the plan alone.

    Args:
        group: RLlib's group: remote env runners, or a local one alone.
        metrics: The run's logger.
        sample_timeout_s: How long remote env runners may take to answer, seconds; None: for ever.
        may_restart: Whether Ray starts an env runner again when its process has ended.
        restore: Takes those back that Ray has started again, and returns their numbers.
        refresh_weights: Gives the learners' newest weights to all env runners.

    Attributes:
        metrics: The run's logger.
        sample_timeout_s: As given.
    """

    def __init__(
        self,
        group: EnvRunnerGroup,
        metrics: MetricsLogger,
        *,
        sample_timeout_s: float | None,
        may_restart: bool,
        restore: Callable[[EnvRunnerGroup], Sequence[int]],
        refresh_weights: Callable[[], None],
    ) -> None:
        self._group = group
        self.metrics = metrics
        self.sample_timeout_s = sample_timeout_s
        self._failed = FailedEnvRunners(metrics)
        self._may_restart = may_restart
        self._restore = restore
        self._refresh_weights = refresh_weights

    @property
    def is_local(self) -> bool:
        """Whether the one env runner is in this process."""
        return self._group.num_remote_env_runners() == 0

    @property
    def _manager(self) -> FaultTolerantActorManager:
        """RLlib's calls of remote env runners: its group drops what those raise."""
        return self._group._worker_manager

    @property
    def healthy_ids(self) -> list[int]:
        """RLlib's numbers of the remote env runners that are not known to have failed."""
        return self._group.healthy_worker_ids()

    def sample(
        self,
        rollouts: Sequence[PlannedRollout],
        *,
        sampling: Sampling = AS_SET,
        key: str | tuple[str, ...] | None = None,
    ) -> list[SingleAgentEpisode]:
        """Sample planned rollouts on all env runners.

        Args:
            rollouts: The plan.
            sampling: How, where it is not as the settings say.
            key: Where to put the runners' metrics; None leaves them out of the results.

        Returns:
            One finished episode per rollout, in the plan's order.

        Raises:
            RuntimeError: If rollouts are still missing after several rounds.
        """
        rounds = [partial(self._sample_once, sampling=sampling)] * NUM_SAMPLING_ROUNDS
        return self._complete(rollouts, rounds, key)

    def start(
        self, rollouts: Sequence[PlannedRollout], *, sampling: Sampling = AS_SET
    ) -> RolloutsInFlight:
        """Let the remote env runners sample while the caller does something else.

        A runner answers calls in their order: weights sent meanwhile reach it after its rollouts,
        so these are all of the weights that it held at the start.

        Args:
            rollouts: The plan.
            sampling: How, where it is not as the settings say.

        Returns:
            What to give to `finish`.

        Raises:
            RuntimeError: If all env runners have failed and none comes back.
        """
        runner_ids = self._present_ids()
        shares = deal(rollouts, len(runner_ids))
        busy = {i: share for i, share in zip(runner_ids, shares, strict=True) if share}
        # A tag of its own: RLlib drops calls where too many of one tag are under way.
        tag = f"rollouts_in_flight_{next(_call_numbers)}"
        if busy:
            self._group.foreach_env_runner_async(
                "sample_and_get_metrics",
                tag,
                kwargs=[{"rollouts": r, "sampling": sampling} for r in busy.values()],
                remote_worker_ids=list(busy),
            )
        return RolloutsInFlight(list(rollouts), sampling, tag, list(busy))

    def finish(
        self, in_flight: RolloutsInFlight, *, key: str | tuple[str, ...] | None = None
    ) -> list[SingleAgentEpisode]:
        """Wait for rollouts that were started; those lost with a failed runner are sampled again.

        They are sampled with the weights that the other runners hold, the same if none were sent
        since the start; with the learners' newest if all runners have failed.

        Args:
            in_flight: What `start` returned.
            key: Where to put the runners' metrics; None leaves them out of the results.

        Returns:
            One finished episode per rollout, in the plan's order.

        Raises:
            RuntimeError: If rollouts are still missing after several rounds.
        """
        again = partial(self._sample_once, sampling=in_flight.sampling)
        rounds: list[Round] = [lambda _: self._answers(in_flight)]
        rounds += [again] * (NUM_SAMPLING_ROUNDS - 1)
        return self._complete(in_flight.rollouts, rounds, key)

    def call(self, function: Callable[[Any], T]) -> list[T]:
        """Call a function with every healthy env runner, where it is; their answers."""
        return self._group.foreach_env_runner(function)

    def set_state(self, state: dict[str, Any]) -> None:
        """Give all healthy env runners a state, and wait until they have it.

        Those that fail, or do not answer within `SYNC_TIMEOUT_S`, are replaced; new ones are given
        the newest weights before they sample.

        Args:
            state: What `TokenEnvRunner.set_state` takes.
        """
        if self.is_local:
            self._group.local_env_runner.set_state(state)
            return
        asked = self.healthy_ids
        results = self._manager.foreach_actor(
            "set_state", kwargs={"state": state}, timeout_seconds=SYNC_TIMEOUT_S
        )
        self._failed.note_failures(results)
        self._end_silent(asked, {result.actor_id for result in results}, SYNC_TIMEOUT_S)

    def handles(self, runner_ids: Sequence[int]) -> list[Any]:
        """Ray's actor handles of remote env runners.

        Args:
            runner_ids: RLlib's numbers of them.
        """
        actors = self._manager.actors()
        return [actors[runner_id] for runner_id in runner_ids]

    def end(self, runner_ids: Sequence[int]) -> None:
        """End the processes of env runners; Ray starts them again, if it may.

        Args:
            runner_ids: RLlib's numbers of them.
        """
        actors = self.handles(runner_ids)
        for runner_id in runner_ids:
            self._manager.set_actor_state(runner_id, healthy=False)
        kill_actors(actors, may_restart=self._may_restart)

    def _complete(
        self,
        rollouts: Sequence[PlannedRollout],
        rounds: Sequence[Round],
        key: str | tuple[str, ...] | None,
    ) -> list[SingleAgentEpisode]:
        """Sample in rounds until there is an episode for every rollout."""
        finished: dict[tuple[int, int], SingleAgentEpisode] = {}
        self._failed.start_call()
        for number, sample in enumerate(rounds):
            missing = [r for r in rollouts if (r.group_id, r.member) not in finished]
            if not missing:
                break
            self._failed.count(NUM_ROLLOUTS_SAMPLED_AGAIN, len(missing) if number else 0)
            for episodes, runner_metrics in sample(missing):
                if key is not None:
                    self.metrics.aggregate([runner_metrics], key=key)
                for episode in episodes:
                    rollout = episode.custom_data[row_data.ROLLOUT]
                    finished[rollout.group_id, rollout.member] = episode
        lost = len(rollouts) - len(finished)
        if lost:
            reasons = "".join(f"\n{line}" for line in self._failed.recent)
            raise RuntimeError(
                f"{lost} of {len(rollouts)} rollouts could not be sampled in "
                f"{NUM_SAMPLING_ROUNDS} rounds: the env runners failed each time.{reasons}"
            )
        return [finished[rollout.group_id, rollout.member] for rollout in rollouts]

    def _sample_once(self, rollouts: list[PlannedRollout], sampling: Sampling) -> Answers:
        """One call of `sample` on every healthy runner."""
        if self.is_local:
            runner = self._group.local_env_runner
            return [runner.sample_and_get_metrics(rollouts=rollouts, sampling=sampling)]
        return self._answers(self.start(rollouts, sampling=sampling))

    def _answers(self, in_flight: RolloutsInFlight) -> Answers:
        """Wait for rollouts as long as `sample_timeout_s` allows; those that came."""
        started = time.monotonic()
        answers: list[Any] = []
        answered: set[int] = set()
        while True:
            waited = time.monotonic() - started
            left = math.inf if self.sample_timeout_s is None else self.sample_timeout_s - waited
            limit = min(left, SILENCE_SAID_S)
            results = self._manager.fetch_ready_async_reqs(
                tags=in_flight.tag, timeout_seconds=max(0.0, limit)
            )
            self._failed.note_failures(results)
            answers += [result.get() for result in results if result.ok]
            answered |= {result.actor_id for result in results}
            silent = [i for i in self._healthy(in_flight.runner_ids) if i not in answered]
            is_over = time.monotonic() - started - waited < limit  # nothing is under way
            if not silent or is_over or limit == left:
                break
            logger.warning(
                "No answer for %d s: %s. They may be busy, or generation or a verifier of your own "
                "hangs: config.env_runners(sample_timeout_s=...) ends those that take longer.",
                time.monotonic() - started,
                self._failed.named(silent),
            )
        self._end_silent(in_flight.runner_ids, answered, self.sample_timeout_s)
        return answers

    def _end_silent(
        self, asked: Sequence[int], answered: Collection[int], limit_s: float | None
    ) -> None:
        """End the processes of healthy env runners that were asked and have not answered."""
        silent = [i for i in self._healthy(asked) if i not in answered]
        if silent:
            self._failed.note_silent(silent, limit_s)
            self.end(silent)

    def _healthy(self, runner_ids: Sequence[int]) -> list[int]:
        healthy = set(self.healthy_ids)
        return [runner_id for runner_id in runner_ids if runner_id in healthy]

    def _present_ids(self) -> list[int]:
        """Healthy env runners, whose places are known; waits for one if there is none.

        Raises:
            RuntimeError: If none comes back in time.
        """
        while True:
            if not self.healthy_ids:
                self._wait_for_one()
            unknown = self._failed.without_place(self.healthy_ids)
            if unknown:
                results = self._manager.foreach_actor(
                    place_of, remote_actor_ids=unknown, timeout_seconds=SYNC_TIMEOUT_S
                )
                self._failed.note_places(results)
            if self.healthy_ids:
                return self.healthy_ids

    def _wait_for_one(self) -> None:
        """All env runners have failed: wait until Ray has restarted one, and give it the weights.

        Raises:
            RuntimeError: If none comes back in time.
        """
        deadline = time.monotonic() + RESTART_TIMEOUT_S
        while not self._restore(self._group):
            if time.monotonic() > deadline:
                reasons = "".join(f"\n{line}" for line in self._failed.recent)
                raise RuntimeError(
                    "All env runners have failed and none came back within "
                    f"{RESTART_TIMEOUT_S} s.{reasons}"
                )
            time.sleep(1.0)
        self._refresh_weights()
