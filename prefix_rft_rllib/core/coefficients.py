"""Factors that change over training."""

from __future__ import annotations

import abc
import dataclasses

from prefix_rft_rllib.basics.ranges import SHARE, whole
from prefix_rft_rllib.core.prefix_schedules import half_cosine


class Coefficient(abc.ABC):
    """A number for every iteration."""

    @abc.abstractmethod
    def at(self, iteration: int) -> float:
        """The number.

        Args:
            iteration: Training iteration, from 0.

        Returns:
            The coefficient.
        """


@dataclasses.dataclass(frozen=True)
class WarmupCosine(Coefficient):
    """Rises linearly from 0 to a peak, then falls along half a cosine and stays.

    CHORD's mu (arXiv 2508.11408, Sec. 3.2). With `peak` = `valley` and no warm-up it is a constant.

    Attributes:
        peak: Value at the end of the warm-up, in [0, 1].
        valley: Value from the end of the fall on, in [0, 1].
        num_warmup_iterations: Iterations of the rise; 0 to start at the peak.
        num_decay_iterations: Iterations of the fall.
    """

    peak: float = 0.5
    valley: float = 0.02
    num_warmup_iterations: int = 200
    num_decay_iterations: int = 400

    def __post_init__(self) -> None:
        SHARE.check("peak", self.peak)
        SHARE.check("valley", self.valley)
        whole(0).check("num_warmup_iterations", self.num_warmup_iterations)
        whole(1).check("num_decay_iterations", self.num_decay_iterations)

    def at(self, iteration: int) -> float:  # noqa: D102
        if iteration < self.num_warmup_iterations:
            return self.peak * iteration / self.num_warmup_iterations
        progress = (iteration - self.num_warmup_iterations) / self.num_decay_iterations
        return half_cosine(progress, self.peak, self.valley)


@dataclasses.dataclass(frozen=True)
class Complement(Coefficient):
    """One minus another coefficient.

    Attributes:
        coefficient: The other one.
    """

    coefficient: Coefficient

    def at(self, iteration: int) -> float:  # noqa: D102
        return 1.0 - self.coefficient.at(iteration)
