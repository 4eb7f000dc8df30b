"""Schedules: from which window, per iteration, the share of a demonstration is drawn."""

from __future__ import annotations

import abc
import dataclasses
import math

from prefix_rft_rllib.core.shares import check_at_least, check_fraction


class Schedule(abc.ABC):
    """The window, per iteration, from which the share of a demonstration is drawn."""

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

    def draw(self, iteration: int, draw: float) -> float:
        """Turn a uniform draw into the share of the demonstration to give.

        Args:
            iteration: Training iteration, from 0.
            draw: A uniform draw in [0, 1).

        Returns:
            The share u in [`low_at(iteration)`, `high`].
        """
        low = self.low_at(iteration)
        return low + draw * (self.high - low)


@dataclasses.dataclass(frozen=True)
class Fixed(Schedule):
    """The same share always.

    Attributes:
        fraction: The share u, in [0, 1]; 0 means no prefix.
    """

    fraction: float

    def __post_init__(self) -> None:
        check_fraction("fraction", self.fraction)

    @property
    def high(self) -> float:  # type: ignore[override]
        """Upper end of the window."""
        return self.fraction

    def low_at(self, iteration: int) -> float:  # noqa: D102
        return self.fraction


@dataclasses.dataclass(frozen=True)
class Uniform(Schedule):
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
class CosineLow(Schedule):
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
        check_at_least("num_iterations", self.num_iterations, 1)

    def low_at(self, iteration: int) -> float:  # noqa: D102
        progress = min(iteration / self.num_iterations, 1.0)
        low = self.end + 0.5 * (1.0 + math.cos(math.pi * progress)) * (self.start - self.end)
        # 0.04 + 0.5 * 2 * (0.11 - 0.04) is a little more than 0.11 in binary.
        return min(low, self.high)


def _check_window(low_name: str, low: float, high_name: str, high: float) -> None:
    check_fraction(low_name, low)
    check_fraction(high_name, high)
    if low > high:
        raise ValueError(
            f"`{low_name}` ({low}) must not be above `{high_name}` ({high}): prefix lengths are "
            "drawn between the two."
        )
