"""Which env runner samples which rollouts of a plan."""

from collections.abc import Sequence

from prefix_rft_rllib.core.prefix_sampling import PlannedRollout


def deal(rollouts: Sequence[PlannedRollout], num_shares: int) -> list[list[PlannedRollout]]:
    """Deal whole groups to env runners in turn.

    Args:
        rollouts: The plan.
        num_shares: How many env runners there are, at least 1.

    Returns:
        Each env runner's rollouts, in the plan's order; empty if there are fewer groups.
    """
    groups: dict[int, list[PlannedRollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.group_id, []).append(rollout)
    shares: list[list[PlannedRollout]] = [[] for _ in range(num_shares)]
    for number, group in enumerate(groups.values()):
        shares[number % num_shares] += group
    return shares
