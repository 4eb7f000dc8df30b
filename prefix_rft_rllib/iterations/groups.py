"""Groups: one problem of an iteration, its planned rollouts and what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from prefix_rft_rllib.core.prefix_sampling import PlannedRollout
from prefix_rft_rllib.envs.problems import Problem
from prefix_rft_rllib.rollouts.row_data import is_solution


@dataclass
class Group:
    """One problem of one iteration: its planned rollouts and what became of them.

    Attributes:
        group_id: Number of the group in the iteration.
        problem: The problem.
        planned: The planned attempts, in the order of their members.
        demonstration_indices: Demonstrations that become rows of their own.
        demonstration_rewards: Their rewards, if they are members of the group; else empty.
        episodes: The finished attempts, in the order of `planned`; empty until sampled.
    """

    group_id: int
    problem: Problem
    planned: list[PlannedRollout]
    demonstration_indices: list[int]
    demonstration_rewards: list[float] = field(default_factory=list)
    episodes: list[SingleAgentEpisode] = field(default_factory=list)

    @property
    def rewards(self) -> list[float]:
        """Reward of every rollout."""
        return [float(episode.get_return()) for episode in self.episodes]

    @property
    def member_rewards(self) -> list[float]:
        """Reward of every member: the rollouts, then the demonstrations that are members."""
        return self.rewards + self.demonstration_rewards

    @property
    def has_signal(self) -> bool:
        """Whether the members' rewards differ: else every advantage is 0."""
        return len(set(self.member_rewards)) > 1

    @property
    def is_failed_with_demonstration(self) -> bool:
        """Whether no rollout solved the problem, and there is a demonstration to learn from."""
        is_solved = any(map(is_solution, self.episodes))
        return bool(self.episodes and self.problem.demonstration_ids) and not is_solved


def in_groups(groups: Sequence[Group], episodes: Sequence[SingleAgentEpisode]) -> None:
    """Put finished episodes into their groups.

    Args:
        groups: The planned groups.
        episodes: All their episodes, in the order of the plan.
    """
    remaining: list[Any] = list(episodes)
    for group in groups:
        count = len(group.planned)
        group.episodes, remaining = remaining[:count], remaining[count:]
    assert not remaining, "more episodes than planned rollouts"
