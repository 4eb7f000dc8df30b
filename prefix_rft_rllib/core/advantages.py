"""Credit for one trajectory: returns of a complete group to advantages."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence

import numpy as np


class GroupAdvantage(abc.ABC):
    """Turns the rewards of one group into one advantage per member."""

    def __call__(self, rewards: Sequence[float], has_prefix: Sequence[bool]) -> list[float]:
        """Advantages of the members of one complete group.

        Args:
            rewards: Reward of each member. Length G of at least 2.
            has_prefix: True for members that started from at least one demonstration token.
                Length G.

        Returns:
            One advantage per member, computed in float64 and rounded once to float32. Exactly 0
            for all if all rewards are equal.

        Raises:
            ValueError: If the group has fewer than two members, a reward is not finite, or the
                kind of baseline does not exist for this group.
        """
        if len(rewards) != len(has_prefix):
            raise ValueError(
                f"`rewards` ({len(rewards)}) and `has_prefix` ({len(has_prefix)}) must have one "
                "entry per member of the group."
            )
        if len(rewards) < 2:
            raise ValueError(
                f"A group needs at least 2 members, got {len(rewards)}: an advantage compares a "
                "rollout with the others of its group. Set `group_size` to 2 or more."
            )
        if not all(math.isfinite(reward) for reward in rewards):
            raise ValueError(f"Rewards must be finite, got {list(rewards)}.")
        baseline = self.baseline(rewards, has_prefix)
        # The rounded mean of equal numbers can differ from them: 3 * 0.1 / 3 is not 0.1.
        if min(rewards) == max(rewards):
            return [0.0] * len(rewards)
        divisor = self.divisor(rewards)
        return [float(np.float32((reward - baseline) / divisor)) for reward in rewards]

    @abc.abstractmethod
    def baseline(self, rewards: Sequence[float], has_prefix: Sequence[bool]) -> float:
        """What each reward is compared with.

        Args:
            rewards: Reward of each member.
            has_prefix: True for members that started from a prefix.

        Returns:
            The number subtracted from every reward of the group.

        Raises:
            ValueError: If there is none for this group.
        """

    def divisor(self, rewards: Sequence[float]) -> float:
        """What the differences from the baseline are divided by.

        Args:
            rewards: Reward of each member; not all equal.

        Returns:
            A positive number, 1 unless a subclass says otherwise.
        """
        return 1.0


@dataclasses.dataclass(frozen=True)
class GroupMean(GroupAdvantage):
    """Reward minus the mean over the whole group, prefix rollouts included; no division.

    Dr.GRPO (arXiv 2503.20783), the paper's choice. A group's advantages sum to zero.
    """

    def baseline(self, rewards: Sequence[float], has_prefix: Sequence[bool]) -> float:  # noqa: D102
        return math.fsum(rewards) / len(rewards)


@dataclasses.dataclass(frozen=True)
class GroupMeanStd(GroupMean):
    """`GroupMean` divided by the standard deviation of the group's rewards plus 1e-6 (GRPO).

    arXiv 2402.03300, Sec. 4.1 leaves open which deviation; as in verl and TRL it is the sample's,
    with G - 1 in the denominator. It makes rare successes, and rare failures, weigh more.
    """

    def divisor(self, rewards: Sequence[float]) -> float:  # noqa: D102
        mean = math.fsum(rewards) / len(rewards)
        variance = math.fsum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1)
        return math.sqrt(variance) + 1e-6


@dataclasses.dataclass(frozen=True)
class TwoLevel(GroupAdvantage):
    """Reward minus the mean over the group's plain rollouts.

    The centred form of the two-level variant in the authors' code: a prefix rollout does not move
    the baseline of the plain ones, whose advantages sum to zero among themselves. A single plain
    rollout has advantage 0. Without prefix rollouts it equals `GroupMean`.
    """

    def baseline(self, rewards: Sequence[float], has_prefix: Sequence[bool]) -> float:  # noqa: D102
        plain = [reward for reward, given in zip(rewards, has_prefix, strict=True) if not given]
        if not plain:
            raise ValueError(
                "`TwoLevel` compares with the plain rollouts of a group, but all of this group's "
                f"{len(rewards)} rollouts start from a prefix. Lower `num_prefix_rollouts`, or use "
                "advantage='group_mean'."
            )
        return math.fsum(plain) / len(plain)
