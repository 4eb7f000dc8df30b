"""Planned rollouts on the env runners, with what to do when runners fail."""

import time
from collections.abc import Sequence
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
    finished: dict[tuple[int, int], SingleAgentEpisode] = {}
    for _ in range(NUM_SAMPLING_ROUNDS):
        missing = [r for r in rollouts if (r.group_id, r.member) not in finished]
        if not missing:
            break
        for episodes, runner_metrics in _sample_once(algorithm, missing, temperature):
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
    algorithm: "PrefixRFT", rollouts: list[Rollout], temperature: float | None
) -> list[tuple[list[SingleAgentEpisode], Any]]:
    """One call of `sample` on every healthy runner."""
    group = algorithm.env_runner_group
    if group.num_remote_env_runners() == 0:
        runner = group.local_env_runner
        return [runner.sample_and_get_metrics(rollouts=rollouts, temperature=temperature)]
    if not group.healthy_worker_ids():
        _wait_for_env_runners(algorithm)
    runner_ids = group.healthy_worker_ids()
    shares = _deal(rollouts, len(runner_ids))
    busy = [(i, share) for i, share in zip(runner_ids, shares, strict=True) if share]
    if not busy:
        return []
    return group.foreach_env_runner(
        "sample_and_get_metrics",
        kwargs=[{"rollouts": share, "temperature": temperature} for _, share in busy],
        remote_worker_ids=[runner_id for runner_id, _ in busy],
        local_env_runner=False,
    )


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
