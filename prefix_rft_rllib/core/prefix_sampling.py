"""Which rollouts start in a prefix state, and how long their prefix is.

All draws are pure functions of (seed, iteration, problem id, member), so the plan of an iteration
does not depend on the number of env runners and needs no state in a checkpoint.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from prefix_rft_rllib.basics.old_names import renamed
from prefix_rft_rllib.basics.random_draws import stable_hash, uniform
from prefix_rft_rllib.basics.ranges import SHARE, whole
from prefix_rft_rllib.basics.shares import floor_share
from prefix_rft_rllib.core.prefix_schedules import CosineLow, Schedule, Window


class PrefixSampler(abc.ABC):
    """Decides which members of a group start from a prefix."""

    fraction: Schedule | None = None
    """Share of the demonstration to give; None for a sampler that never draws."""

    @abc.abstractmethod
    def draw_member(self, member: int) -> int | None:
        """Whose draw a member uses.

        Args:
            member: Number of the rollout in its group, from 0.

        Returns:
            The member whose draw decides prefix length and demonstration (members with the same
            answer share their prefix), or None for a plain rollout.
        """

    def check(self, num_rollouts: int) -> None:
        """Check that the sampler fits the number of rollouts in a group.

        Args:
            num_rollouts: Rollouts per group.

        Raises:
            ValueError: If it does not.
        """
        return


@dataclasses.dataclass(frozen=True)
class Never(PrefixSampler):
    """No prefixes: all rollouts start from the prompt."""

    def draw_member(self, member: int) -> int | None:  # noqa: D102
        return None


@dataclasses.dataclass(frozen=True)
class PerGroup(PrefixSampler):
    """Some rollouts of each group start from a prefix, each from its own draw.

    Attributes:
        num_prefix_rollouts: How many; members 0 to `num_prefix_rollouts` - 1.
        fraction: Share of the demonstration to give.
    """

    num_prefix_rollouts: int = 1
    fraction: Schedule = dataclasses.field(default_factory=CosineLow)

    def __post_init__(self) -> None:
        whole(1).check("num_prefix_rollouts", self.num_prefix_rollouts)

    def draw_member(self, member: int) -> int | None:  # noqa: D102
        return member if member < self.num_prefix_rollouts else None

    def check(self, num_rollouts: int) -> None:  # noqa: D102
        if self.num_prefix_rollouts > num_rollouts:
            raise ValueError(
                f"`num_prefix_rollouts` ({self.num_prefix_rollouts}) must not be above the number "
                f"of rollouts in a group ({num_rollouts}). Raise `group_size` or lower it."
            )


@dataclasses.dataclass(frozen=True)
class WholeGroup(PrefixSampler):
    """All rollouts of a group start from the same prefix.

    Attributes:
        fraction: Share of the demonstration to give.
    """

    fraction: Schedule = dataclasses.field(default_factory=CosineLow)

    def draw_member(self, member: int) -> int | None:  # noqa: D102
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupSpec:
    """What the planner needs to know about one problem of one iteration.

    Attributes:
        seed: Seed of the run.
        iteration: Training iteration, from 0.
        group_id: Number of the group in the iteration. Not part of any draw.
        problem_id: The problem.
        num_rollouts: Rollouts to plan.
        demonstration_lengths: Tokens of each usable demonstration, end token included. May be
            empty: then all rollouts are plain.
        answer_cut: Called with the index of a drawn demonstration; gives the number of its tokens
            before the answer, or None for no cut.
        max_response_tokens: T_max: the longest response, prefix included.
        occurrence: How many earlier groups of the iteration have the same problem, so that a
            problem met twice is not sampled with the same draws.
        step_ends: Called with the index of a drawn demonstration; gives the numbers of its leading
            tokens at which solution steps end, its length last. One step by default.
        schedule_iteration: Iteration of the schedule, from 0; `iteration` by default.
        schedule_state: State of the schedule.
    """

    seed: int
    iteration: int
    group_id: int
    problem_id: str
    num_rollouts: int
    demonstration_lengths: Sequence[int]
    answer_cut: Callable[[int], int | None]
    max_response_tokens: int
    occurrence: int = 0
    step_ends: Callable[[int], Sequence[int]] | None = None
    schedule_iteration: int | None = None
    schedule_state: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def window(self, schedule: Schedule) -> Window:
        """The problem's window in this iteration."""
        iteration = self.iteration if self.schedule_iteration is None else self.schedule_iteration
        return schedule.window(iteration, self.schedule_state, self.problem_id)

    def steps_of(self, index: int) -> Sequence[int]:
        """Where the solution steps of a demonstration end, in tokens."""
        if self.step_ends is None:
            return (self.demonstration_lengths[index],)
        return self.step_ends(index)

    def key(self, purpose: str, member: int) -> tuple[int | str, ...]:
        """The key of a draw.

        Args:
            purpose: What is drawn.
            member: For which member.

        Returns:
            A key for the functions of `random_draws`.
        """
        return (purpose, self.seed, self.iteration, self.problem_id, self.occurrence, member)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedRollout:
    """The plan of one attempt at a problem.

    Attributes:
        problem_id: The problem.
        group_id: Number of the group in the iteration.
        member: Number of the rollout in its group, from 0.
        demonstration_index: Which demonstration the prefix comes from; 0 for plain rollouts.
        num_prefix_tokens: Length L of the prefix after all limits, in tokens.
        prefix_fraction: The drawn share u; 0.0 for plain rollouts.
        drawn_prefix_tokens: floor(u * |y*|), before any limit.
        was_cut: True if the prefix is shorter because of the answer's position.
        window_low: Lower end of the window that u was drawn from; None for plain rollouts.
        window_high: Upper end.
        seed: Seed of the engine for this rollout, in [0, 2**63).
    """

    problem_id: str
    group_id: int
    member: int
    seed: int
    demonstration_index: int = 0
    num_prefix_tokens: int = 0
    prefix_fraction: float = 0.0
    drawn_prefix_tokens: int = 0
    was_cut: bool = False
    window_low: float | None = None
    window_high: float | None = None

    @property
    def has_prefix(self) -> bool:
        """True if the rollout starts from at least one demonstration token."""
        return self.num_prefix_tokens > 0

    @property
    def reset_options(self) -> dict[str, str | int]:
        """The options for the environment's `reset`."""
        return {
            "problem_id": self.problem_id,
            "demonstration_index": self.demonstration_index,
            "num_prefix_tokens": self.num_prefix_tokens,
        }


def prefix_length(
    fraction: float,
    demonstration_length: int,
    max_response_tokens: int,
    answer_cut: int | None,
) -> int:
    """Length of a prefix that is a share of its demonstration, in tokens (Prefix-RFT, Sec. 3).

    Args:
        fraction: Share u of the demonstration, in [0, 1].
        demonstration_length: |y*|, tokens of the demonstration with its end token.
        max_response_tokens: T_max.
        answer_cut: Tokens before the demonstration's answer; None for no cut.

    Returns:
        `limited_length` of floor(u * |y*|); 0 for u = 0. The product is rounded to nine decimals
        before the floor, so that 0.29 of 100 tokens are 29 although 0.29 * 100 < 29 in binary.

    Raises:
        ValueError: If `fraction` is outside [0, 1].
    """
    SHARE.check("fraction", fraction)
    if fraction == 0:
        return 0
    drawn = floor_share(fraction, demonstration_length)
    return limited_length(drawn, demonstration_length, max_response_tokens, answer_cut)


def limited_length(
    drawn: int, demonstration_length: int, max_response_tokens: int, answer_cut: int | None
) -> int:
    """Length of a drawn prefix after all limits, in tokens (the limits are this project's).

    min(drawn, |y*| - 1, T_max - 1, cut), where a draw of 0 counts as 1. At least one token is
    thereby always left to sample, and a prefix never reaches the answer: with a cut of 0 there is
    none.

    Args:
        drawn: Tokens drawn.
        demonstration_length: |y*|, tokens of the demonstration with its end token.
        max_response_tokens: T_max.
        answer_cut: Tokens before the demonstration's answer; None for no cut.

    Returns:
        The length L, from 0 to `demonstration_length` - 1.
    """
    limits = [max(1, drawn), demonstration_length - 1, max_response_tokens - 1]
    if answer_cut is not None:
        limits.append(answer_cut)
    return max(0, min(limits))


def plan_group(sampler: PrefixSampler, group: GroupSpec) -> list[PlannedRollout]:
    """Plan the rollouts of one problem.

    Args:
        sampler: The method's prefix sampler.
        group: The problem and the sizes.

    Returns:
        `group.num_rollouts` plans, in the order of their members. A share of 0 gives exactly the
        plan of a plain rollout.

    Raises:
        ValueError: If the sampler does not fit the number of rollouts.
    """
    sampler.check(group.num_rollouts)
    return [_plan_rollout(sampler, group, member) for member in range(group.num_rollouts)]


def _plan_rollout(sampler: PrefixSampler, group: GroupSpec, member: int) -> PlannedRollout:
    plain = PlannedRollout(
        problem_id=group.problem_id,
        group_id=group.group_id,
        member=member,
        seed=stable_hash(*group.key("rollout", member)),
    )
    draw_member = sampler.draw_member(member)
    num_demonstrations = len(group.demonstration_lengths)
    if draw_member is None or num_demonstrations == 0:
        return plain
    assert sampler.fraction is not None, "a sampler that draws has a schedule"
    index = int(uniform(*group.key("demonstration", draw_member)) * num_demonstrations)
    length = group.demonstration_lengths[index]
    window = group.window(sampler.fraction)
    prefix = window.prefix(
        uniform(*group.key("prefix_fraction", draw_member)), length, lambda: group.steps_of(index)
    )
    if prefix.fraction == 0:
        return plain
    budget = group.max_response_tokens
    uncut = limited_length(prefix.num_tokens, length, budget, None)
    num_prefix_tokens = limited_length(prefix.num_tokens, length, budget, group.answer_cut(index))
    return dataclasses.replace(
        plain,
        demonstration_index=index,
        num_prefix_tokens=num_prefix_tokens,
        prefix_fraction=prefix.fraction,
        drawn_prefix_tokens=prefix.num_tokens,
        was_cut=num_prefix_tokens < uncut,
        window_low=window.low,
        window_high=window.high,
    )


__getattr__ = partial(renamed, __name__)
