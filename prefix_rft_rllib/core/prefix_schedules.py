"""How much of a demonstration to give, as a function of the iteration.

A schedule names a window for every iteration: the distribution that prefix lengths are drawn from.
Schedules are frozen values. One that learns from rewards (`adaptive_schedule`) keeps nothing
itself: its state is plain data that goes in and comes out, and belongs into the checkpoint.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from prefix_rft_rllib.basics.ranges import SHARE, whole
from prefix_rft_rllib.basics.shares import floor_share


class PrefixDraw(NamedTuple):
    """What was drawn, before any limit.

    Attributes:
        fraction: The share u of the demonstration, in [0, 1]; 0 for no prefix.
        num_tokens: The same as a number of leading tokens.
    """

    fraction: float
    num_tokens: int


class Window(abc.ABC):
    """The distribution of prefix lengths in one iteration."""

    low: float
    """Lower end of the shares it can give, in [0, `high`]."""
    high: float
    """Upper end, in [0, 1]."""

    @abc.abstractmethod
    def prefix(
        self, draw: float, num_tokens: int, step_ends: Callable[[], Sequence[int]]
    ) -> PrefixDraw:
        """Turn a uniform draw into a prefix of one demonstration.

        Args:
            draw: A uniform draw in [0, 1).
            num_tokens: |y*|, tokens of the demonstration with its end token.
            step_ends: Gives the numbers of leading tokens at which its solution steps end,
                increasing, `num_tokens` last. Called only where steps count.

        Returns:
            The prefix.
        """


@dataclasses.dataclass(frozen=True)
class UniformWindow(Window):
    """Shares drawn evenly between two ends.

    Attributes:
        low: Lower end, in [0, `high`].
        high: Upper end, in [0, 1].
    """

    low: float
    high: float

    def prefix(  # noqa: D102
        self, draw: float, num_tokens: int, step_ends: Callable[[], Sequence[int]]
    ) -> PrefixDraw:
        fraction = self.low + draw * (self.high - self.low)
        return PrefixDraw(fraction, floor_share(fraction, num_tokens))


@dataclasses.dataclass(frozen=True)
class ChunkWindow(Window):
    """The first k of at most `max_chunks` chunks, k binomial: whole solution steps (UFT).

    A demonstration of more steps than chunks has its steps merged, chunk j ending with step
    floor(j * steps / chunks); one of fewer steps has one chunk per step.

    Attributes:
        probability: p of k ~ Binomial(chunks, p), in [0, 1].
        max_chunks: Largest number of chunks.
    """

    probability: float
    max_chunks: int

    @property
    def low(self) -> float:  # type: ignore[override]
        """Lower end of the shares it can give."""
        return 1.0 if self.probability == 1.0 else 0.0

    @property
    def high(self) -> float:  # type: ignore[override]
        """Upper end of the shares it can give."""
        return 0.0 if self.probability == 0.0 else 1.0

    def prefix(  # noqa: D102
        self, draw: float, num_tokens: int, step_ends: Callable[[], Sequence[int]]
    ) -> PrefixDraw:
        if self.probability == 0.0:
            return PrefixDraw(0.0, 0)
        ends = step_ends()
        num_chunks = min(self.max_chunks, len(ends))
        num_given = _binomial(draw, num_chunks, self.probability)
        if num_given == 0:
            return PrefixDraw(0.0, 0)
        end = ends[num_given * len(ends) // num_chunks - 1]
        return PrefixDraw(end / num_tokens, end)


def _binomial(draw: float, num_trials: int, probability: float) -> int:
    """The smallest k whose cumulative probability is above the draw."""
    cumulative = 0.0
    for k in range(num_trials):
        cumulative += (
            math.comb(num_trials, k) * probability**k * (1.0 - probability) ** (num_trials - k)
        )
        if draw < cumulative:
            return k
    return num_trials


class Rewards(NamedTuple):
    """What one iteration's rollouts earned, for schedules that learn from it.

    Attributes:
        prefix: Mean reward of the rollouts with a prefix, by problem.
        plain: Reward of every rollout without one.
    """

    prefix: Mapping[str, float]
    plain: Sequence[float]


class Schedule(abc.ABC):
    """A window for every iteration."""

    def initial_state(self) -> dict[str, Any]:
        """What a run starts from.

        Returns:
            Plain data; empty for a schedule that only knows the iteration.
        """
        return {}

    @abc.abstractmethod
    def window(self, iteration: int, state: Mapping[str, Any], problem_id: str | None) -> Window:
        """The window of one problem in one iteration.

        Args:
            iteration: Training iteration, from 0.
            state: The state after the iteration before.
            problem_id: The problem; None for the run's own window, without any problem's offset.

        Returns:
            The window.
        """

    def next_state(self, state: Mapping[str, Any], rewards: Rewards) -> dict[str, Any]:
        """Learn from an iteration.

        Args:
            state: The state the iteration was planned with; not modified.
            rewards: What its rollouts earned.

        Returns:
            The state for the next iteration.
        """
        return dict(state)


class TimedSchedule(Schedule):
    """A uniform window that only depends on the iteration."""

    high: float
    """Upper end of the window, in [0, 1]; the same for all iterations."""

    @abc.abstractmethod
    def low_at(self, iteration: int) -> float:
        """Lower end of the window.

        Args:
            iteration: Training iteration, from 0.

        Returns:
            A share in [0, `high`].
        """

    def window(  # noqa: D102
        self, iteration: int, state: Mapping[str, Any], problem_id: str | None
    ) -> UniformWindow:
        return UniformWindow(self.low_at(iteration), self.high)


@dataclasses.dataclass(frozen=True)
class Fixed(TimedSchedule):
    """The same share always.

    Attributes:
        fraction: The share u, in [0, 1]; 0 means no prefix.
    """

    fraction: float

    def __post_init__(self) -> None:
        SHARE.check("fraction", self.fraction)

    @property
    def high(self) -> float:  # type: ignore[override]
        """Upper end of the window."""
        return self.fraction

    def low_at(self, iteration: int) -> float:  # noqa: D102
        return self.fraction


@dataclasses.dataclass(frozen=True)
class Uniform(TimedSchedule):
    """The same window in all iterations.

    Attributes:
        low: Lower end, in [0, `high`].
        high: Upper end, in [0, 1].
    """

    low: float = 0.05
    high: float = 0.95

    def __post_init__(self) -> None:
        _check_window("low", self.low, "high", self.high)

    def low_at(self, iteration: int) -> float:  # noqa: D102
        return self.low


@dataclasses.dataclass(frozen=True)
class CosineLow(TimedSchedule):
    """A window that opens: its lower end falls along half a cosine, its upper end stays.

    low_t = end + 0.5 * (1 + cos(pi * t / num_iterations)) * (start - end); `end` from
    `num_iterations` on (Prefix-RFT, Sec. 3 and App. A.2).

    Attributes:
        start: Lower end in iteration 0.
        end: Lower end from iteration `num_iterations` on.
        high: Upper end, in [0, 1].
        num_iterations: Iterations until the lower end has arrived.
    """

    start: float = 0.95
    end: float = 0.05
    high: float = 0.95
    num_iterations: int = 500

    def __post_init__(self) -> None:
        _check_window("start", self.start, "high", self.high)
        _check_window("end", self.end, "high", self.high)
        whole(1).check("num_iterations", self.num_iterations)

    def low_at(self, iteration: int) -> float:  # noqa: D102
        low = half_cosine(iteration / self.num_iterations, self.start, self.end)
        # 0.04 + 0.5 * 2 * (0.11 - 0.04) is a little more than 0.11 in binary.
        return min(low, self.high)


@dataclasses.dataclass(frozen=True)
class BinomialChunks(Schedule):
    """Whole solution steps, fewer and fewer of them, then none (UFT, arXiv 2505.16984, Sec. 3).

    The number of given chunks is binomial with p_t falling along half a cosine.

    Attributes:
        start: p in iteration 0.
        end: p just before iteration `num_iterations`; from then on no prefix is given.
        num_iterations: Iterations with prefixes.
        max_chunks: Chunks that the steps of a demonstration are merged into.
    """

    start: float = 0.95
    end: float = 0.05
    num_iterations: int = 300
    max_chunks: int = 5

    def __post_init__(self) -> None:
        SHARE.check("start", self.start)
        SHARE.check("end", self.end)
        whole(1).check("num_iterations", self.num_iterations)
        whole(1).check("max_chunks", self.max_chunks)

    def window(  # noqa: D102
        self, iteration: int, state: Mapping[str, Any], problem_id: str | None
    ) -> ChunkWindow:
        if iteration >= self.num_iterations:
            return ChunkWindow(0.0, self.max_chunks)
        probability = half_cosine(iteration / self.num_iterations, self.start, self.end)
        return ChunkWindow(probability, self.max_chunks)


def half_cosine(progress: float, start: float, end: float) -> float:
    """A value that moves from `start` to `end` along half a cosine.

    Args:
        progress: 0 at the start, 1 at the end; larger values count as 1.
        start: Value at 0.
        end: Value at 1.

    Returns:
        end + 0.5 * (1 + cos(pi * progress)) * (start - end).
    """
    return end + 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0))) * (start - end)


def _check_window(low_name: str, low: float, high_name: str, high: float) -> None:
    SHARE.check(low_name, low)
    SHARE.check(high_name, high)
    if low > high:
        raise ValueError(
            f"`{low_name}` ({low}) must not be above `{high_name}` ({high}): prefix lengths are "
            "drawn between the two."
        )
