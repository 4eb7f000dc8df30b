"""Planned rollouts on the env runners, with what to do when runners fail."""

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from prefix_rft_rllib.core.prefix_sampling import PlannedRollout
from prefix_rft_rllib.rollouts.row_data import ROLLOUT

if TYPE_CHECKING:
    from prefix_rft_rllib.prefix_rft import PrefixRFT

logger = logging.getLogger(__name__)

NUM_SAMPLING_ROUNDS = 3
"""How often rollouts lost with a failed env runner are sampled again."""
RESTART_TIMEOUT_S = 180.0
"""How long to wait for a restarted env runner when none is left, seconds."""

KILL_TIMEOUT_S = 10.0
"""How long a process may take to end, seconds."""

Answers = Sequence[tuple[list[SingleAgentEpisode], Any]]
"""What `sample_and_get_metrics` of several env runners returned."""
_call_numbers = itertools.count()


def sample_rollouts(
    algorithm: "PrefixRFT",
    rollouts: Sequence[PlannedRollout],
    *,
    temperature: float | None = None,
    key: str | tuple[str, ...] | None = None,
) -> list[SingleAgentEpisode]:
    """Sample planned rollouts on all env runners.

    Groups stay whole on one runner, so that their prompt is prefilled once. Rollouts lost with
    a failed runner, or one that does not answer within `sample_timeout_s`, are sampled again on the
    others: draws depend on the plan alone.

    Args:
        algorithm: The algorithm whose env runners sample.
        rollouts: The plan.
        temperature: Sampling temperature; default the config's. 0 is greedy.
        key: Where to put the runners' metrics; None leaves them out of the results.

    Returns:
        One finished episode per rollout, in the plan's order.

    Raises:
        RuntimeError: If rollouts are still missing after several rounds.
    """
    rounds = [partial(_sample_once, algorithm, temperature=temperature)] * NUM_SAMPLING_ROUNDS
    return _complete(algorithm, rollouts, rounds, key)


class RolloutsInFlight:
    """Planned rollouts that the remote env runners sample while the caller does something else.

    A runner answers calls in their order: weights sent meanwhile reach it after its rollouts, so
    these are all of the weights that it held at the start.

    Args:
        algorithm: The algorithm whose env runners sample.
        rollouts: The plan.
        temperature: Sampling temperature; default the config's.
    """

    def __init__(
        self,
        algorithm: "PrefixRFT",
        rollouts: Sequence[PlannedRollout],
        temperature: float | None = None,
    ) -> None:
        self._algorithm = algorithm
        self._rollouts = list(rollouts)
        # A tag of its own: RLlib drops calls where too many of one tag are under way.
        self._tag = f"rollouts_in_flight_{next(_call_numbers)}"
        calls = _calls(algorithm, self._rollouts, temperature)
        self._asked: list[int] = calls["remote_worker_ids"]
        if self._asked:
            algorithm.env_runner_group.foreach_env_runner_async(**calls, tag=self._tag)

    def finish(self, key: str | tuple[str, ...]) -> list[SingleAgentEpisode]:
        """Wait for the rollouts; those lost with a failed runner are sampled again.

        They are sampled with the weights that the other runners hold, the same if none were sent
        since the start; with the learners' newest if all runners have failed.

        Args:
            key: Where to put the runners' metrics.

        Returns:
            One finished episode per rollout, in the plan's order.

        Raises:
            RuntimeError: If rollouts are still missing after several rounds.
        """
        again = [partial(_sample_once, self._algorithm)] * (NUM_SAMPLING_ROUNDS - 1)
        return _complete(self._algorithm, self._rollouts, [lambda _: self.answers(), *again], key)

    def answers(self) -> Answers:
        """Wait for the rollouts as long as `sample_timeout_s` allows; those that came."""
        group = self._algorithm.env_runner_group
        answers = group.fetch_ready_async_reqs(
            tags=self._tag, timeout_seconds=self._algorithm.config.sample_timeout_s
        )
        answered = {runner_id for runner_id, _ in answers}
        healthy = set(group.healthy_worker_ids())
        silent = [i for i in self._asked if i in healthy - answered]
        if silent:
            logger.error(
                "Env runners %s did not answer within `sample_timeout_s` (%s s). Their processes "
                "are ended and their rollouts sampled again.",
                silent,
                self._algorithm.config.sample_timeout_s,
            )
            end_env_runners(self._algorithm, silent)
        return [answer for _, answer in answers]


def _complete(
    algorithm: "PrefixRFT",
    rollouts: Sequence[PlannedRollout],
    rounds: Iterable[Callable[[list[PlannedRollout]], Answers]],
    key: str | tuple[str, ...] | None,
) -> list[SingleAgentEpisode]:
    """Sample in rounds until there is an episode for every rollout."""
    finished: dict[tuple[int, int], SingleAgentEpisode] = {}
    for sample in rounds:
        missing = [r for r in rollouts if (r.group_id, r.member) not in finished]
        if not missing:
            break
        for episodes, runner_metrics in sample(missing):
            if key is not None:
                algorithm.metrics.aggregate([runner_metrics], key=key)
            for episode in episodes:
                rollout = episode.custom_data[ROLLOUT]
                finished[rollout.group_id, rollout.member] = episode
    lost = len(rollouts) - len(finished)
    if lost:
        raise RuntimeError(
            f"{lost} of {len(rollouts)} rollouts could not be sampled in {NUM_SAMPLING_ROUNDS} "
            "rounds: the env runners failed each time. Their logs have the reason; with "
            "`num_env_runners=0` the error is raised here."
        )
    return [finished[rollout.group_id, rollout.member] for rollout in rollouts]


def _sample_once(
    algorithm: "PrefixRFT", rollouts: list[PlannedRollout], temperature: float | None = None
) -> Answers:
    """One call of `sample` on every healthy runner."""
    group = algorithm.env_runner_group
    if group.num_remote_env_runners() == 0:
        runner = group.local_env_runner
        return [runner.sample_and_get_metrics(rollouts=rollouts, temperature=temperature)]
    return RolloutsInFlight(algorithm, rollouts, temperature).answers()


def _calls(
    algorithm: "PrefixRFT", rollouts: Sequence[PlannedRollout], temperature: float | None = None
) -> dict[str, Any]:
    """Arguments of RLlib's calls that give every healthy runner its share of the rollouts."""
    group = algorithm.env_runner_group
    if not group.healthy_worker_ids():
        _wait_for_env_runners(algorithm)
    runner_ids = group.healthy_worker_ids()
    shares = _deal(rollouts, len(runner_ids))
    busy = [(i, share) for i, share in zip(runner_ids, shares, strict=True) if share]
    return {
        "func": "sample_and_get_metrics",
        "kwargs": [{"rollouts": share, "temperature": temperature} for _, share in busy],
        "remote_worker_ids": [runner_id for runner_id, _ in busy],
    }


def end_env_runners(algorithm: "PrefixRFT", runner_ids: Sequence[int]) -> None:
    """End the processes of env runners; Ray starts them again, if it may.

    Args:
        algorithm: The algorithm whose env runners these are.
        runner_ids: RLlib's numbers of them.
    """
    manager = algorithm.env_runner_group._worker_manager
    actors = [manager.actors()[runner_id] for runner_id in runner_ids]
    # `ray.kill` does not wait: these calls end with the processes, which answer nothing any more.
    ends = [actor.apply.remote(_outlast_a_kill) for actor in actors]
    for runner_id, actor in zip(runner_ids, actors, strict=True):
        manager.set_actor_state(runner_id, healthy=False)
        ray.kill(actor, no_restart=not algorithm.config.restart_failed_env_runners)
    ray.wait(ends, num_returns=len(ends), timeout=2 * KILL_TIMEOUT_S)


def _outlast_a_kill(env_runner: Any) -> None:
    time.sleep(KILL_TIMEOUT_S)


def _wait_for_env_runners(algorithm: "PrefixRFT") -> None:
    """All env runners have failed: wait until Ray has restarted one, and give it the weights.

    Raises:
        RuntimeError: If none comes back in time.
    """
    deadline = time.monotonic() + RESTART_TIMEOUT_S
    while not algorithm.restore_env_runners(algorithm.env_runner_group):
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"All env runners have failed and none came back within {RESTART_TIMEOUT_S} s. "
                "Their logs have the reason; with `num_env_runners=0` the error is raised here."
            )
        time.sleep(1.0)
    algorithm.sync_weights()


def _deal(rollouts: Sequence[PlannedRollout], num_shares: int) -> list[list[PlannedRollout]]:
    """Deal whole groups to runners in turn."""
    groups: dict[int, list[PlannedRollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.group_id, []).append(rollout)
    shares: list[list[PlannedRollout]] = [[] for _ in range(num_shares)]
    for number, group in enumerate(groups.values()):
        shares[number % num_shares] += group
    return shares
