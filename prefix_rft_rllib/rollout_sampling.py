"""Planned rollouts on the env runners, with what to do when runners fail."""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from prefix_rft_rllib.connectors.episodes import ROLLOUT
from prefix_rft_rllib.core.prefix_sampling import Rollout

if TYPE_CHECKING:
    from prefix_rft_rllib.prefix_rft import PrefixRFT

NUM_SAMPLING_ROUNDS = 3
"""How often rollouts lost with a failed env runner are sampled again."""
RESTART_TIMEOUT_S = 180.0
"""How long to wait for a restarted env runner when none is left, seconds."""

Answers = Sequence[tuple[list[SingleAgentEpisode], Any]]
"""What `sample_and_get_metrics` of several env runners returned."""
_call_numbers = itertools.count()


def sample_rollouts(
    algorithm: "PrefixRFT",
    rollouts: Sequence[Rollout],
    *,
    temperature: float | None = None,
    key: str | tuple[str, ...] | None = None,
) -> list[SingleAgentEpisode]:
    """Sample planned rollouts on all env runners.

    Groups stay whole on one runner, so that their prompt is prefilled once. Rollouts lost with
    a failed runner are sampled again on the others: draws depend on the plan alone.

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
    """

    def __init__(self, algorithm: "PrefixRFT", rollouts: Sequence[Rollout]) -> None:
        self._algorithm = algorithm
        self._rollouts = list(rollouts)
        # A tag of its own: RLlib drops calls where too many of one tag are under way.
        self._tag = f"rollouts_in_flight_{next(_call_numbers)}"
        calls = _calls(algorithm, self._rollouts)
        if calls["kwargs"]:
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
        return _complete(self._algorithm, self._rollouts, [self._answers, *again], key)

    def _answers(self, rollouts: Sequence[Rollout]) -> Answers:
        group = self._algorithm.env_runner_group
        answers = group.fetch_ready_async_reqs(tags=self._tag, timeout_seconds=None)
        return [answer for _, answer in answers]


def _complete(
    algorithm: "PrefixRFT",
    rollouts: Sequence[Rollout],
    rounds: Iterable[Callable[[list[Rollout]], Answers]],
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
    algorithm: "PrefixRFT", rollouts: list[Rollout], temperature: float | None = None
) -> Answers:
    """One call of `sample` on every healthy runner."""
    group = algorithm.env_runner_group
    if group.num_remote_env_runners() == 0:
        runner = group.local_env_runner
        return [runner.sample_and_get_metrics(rollouts=rollouts, temperature=temperature)]
    calls = _calls(algorithm, rollouts, temperature)
    return group.foreach_env_runner(**calls, local_env_runner=False) if calls["kwargs"] else []


def _calls(
    algorithm: "PrefixRFT", rollouts: Sequence[Rollout], temperature: float | None = None
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


def _deal(rollouts: Sequence[Rollout], num_shares: int) -> list[list[Rollout]]:
    """Deal whole groups to runners in turn."""
    groups: dict[int, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.group_id, []).append(rollout)
    shares: list[list[Rollout]] = [[] for _ in range(num_shares)]
    for number, group in enumerate(groups.values()):
        shares[number % num_shares] += group
    return shares
