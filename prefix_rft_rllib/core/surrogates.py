"""The trust region: what a policy weight is multiplied by once the policy has moved.

At the old policy every surrogate has the slope 1, so that the gradient is the weight table. They
differ in what they do where the ratio pi / pi_old is far from 1.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from prefix_rft_rllib.basics.ranges import real

_DISTANCE = "It is the distance of the ratio from 1, such as 0.2."
_LOW = real(above=0, below=1).advising(_DISTANCE)
_HIGH = real(above=0, may_be_infinite=True).advising(_DISTANCE)
_DUAL = real(above=1, may_be_infinite=True).advising("3 is usual, None switches it off.")


class Factor(NamedTuple):
    """What each policy weight is multiplied by.

    Attributes:
        value: The factor, differentiable. Shape (B, T).
        is_clipped: True where the surrogate removed the token's gradient, or bounded it. Shape
            (B, T), bool.
    """

    value: Tensor
    is_clipped: Tensor


class Surrogate(abc.ABC):
    """What becomes of the policy weights when the policy moves within an iteration."""

    @abc.abstractmethod
    def factor(self, weight: Tensor, logp: Tensor, old_logp: Tensor) -> Factor:
        """The factor of every policy weight; the loss is minus their product's sum.

        Args:
            weight: The policy weights, detached. Shape (B, T). Rows are whole.
            logp: Log probabilities under the policy being trained, with gradient. Shape (B, T); 0
                where the weight is 0.
            old_logp: The same under the policy that sampled. Shape (B, T); 0 where the weight is 0.

        Returns:
            The factor. Its derivative by the token's own `logp` is 1 where `logp` is `old_logp`.
        """

    def completed_by(self, clip: PPOClip) -> Surrogate:
        """This surrogate with bounds.

        Args:
            clip: The config's bounds.

        Returns:
            `clip` for a `PPOClip` without bounds of its own; else this surrogate.
        """
        return self


@dataclasses.dataclass(frozen=True)
class NoClip(Surrogate):
    """The ratio itself, whatever it is."""

    def factor(self, weight: Tensor, logp: Tensor, old_logp: Tensor) -> Factor:  # noqa: D102
        return Factor((logp - old_logp).exp(), torch.zeros_like(weight, dtype=torch.bool))


@dataclasses.dataclass(frozen=True)
class PPOClip(Surrogate):
    """min(ratio * w, bounded ratio * w) for the weight w (PPO, arXiv 1707.06347, eq. 7).

    The ratio is bounded to [1 - low, 1 + high]; for w < 0 the product is at least `dual` * w (dual
    clip, arXiv 1912.09729, eq. 5). A clip has all three bounds of its own or none: without `low`
    they are the config's `clip_param`, `clip_param_high` and `dual_clip`.

    Attributes:
        low: Lower distance of the ratio from 1, in (0, 1); None for the config's bounds.
        high: Upper distance, above 0; None for `low`.
        dual: Bound of the ratio for negative weights, above 1; None for no bound.
    """

    low: float | None = None
    high: float | None = None
    dual: float | None = None

    def __post_init__(self) -> None:
        if self.low is None:
            _check_no_bounds(self)
            return
        _LOW.check("low", self.low)
        if self.high is not None:
            _HIGH.check("high", self.high)
        if self.dual is not None:
            _DUAL.check("dual", self.dual)

    def completed_by(self, clip: PPOClip) -> Surrogate:  # noqa: D102
        return clip if self.low is None else self

    def factor(self, weight: Tensor, logp: Tensor, old_logp: Tensor) -> Factor:  # noqa: D102
        return self._clipped(weight, logp - old_logp)

    def _clipped(self, weight: Tensor, log_ratio: Tensor) -> Factor:
        """The ratio, or the bound that replaces it."""
        bound = self._active_bound(weight, log_ratio.detach().exp())
        is_clipped = ~bound.isnan()
        # A clipped token is a constant; keeping exp away from it avoids 0 * inf in its gradient.
        free = torch.where(is_clipped, torch.zeros_like(log_ratio), log_ratio).exp()
        return Factor(torch.where(is_clipped, bound, free), is_clipped)

    def _active_bound(self, weight: Tensor, ratio: Tensor) -> Tensor:
        """The bound that replaces the ratio, or NaN where the ratio itself counts. Shape (B, T)."""
        assert self.low is not None, "complete the clip with the config's bounds first"
        low, high = self.low, self.low if self.high is None else self.high
        bound = torch.full_like(ratio, torch.nan)
        bound = torch.where((weight > 0) & (ratio > 1 + high), 1 + high, bound)
        bound = torch.where((weight < 0) & (ratio < 1 - low), 1 - low, bound)
        if self.dual is not None:
            bound = torch.where((weight < 0) & (ratio > self.dual), self.dual, bound)
        return bound


@dataclasses.dataclass(frozen=True)
class CISPO(Surrogate):
    """min(ratio, 1 + high), detached, times log p: no token loses its gradient.

    CISPO, arXiv 2506.13585, eq. 4 and 5, without lower bound as in its experiments.

    Attributes:
        high: Upper distance of the detached ratio from 1, above 0.
    """

    high: float = 0.28

    def __post_init__(self) -> None:
        _HIGH.check("high", self.high)

    def factor(self, weight: Tensor, logp: Tensor, old_logp: Tensor) -> Factor:  # noqa: D102
        ratio = (logp - old_logp).detach().exp()
        return Factor(ratio.clamp(max=1 + self.high) * logp, ratio > 1 + self.high)


@dataclasses.dataclass(frozen=True)
class GSPO(Surrogate):
    """The PPO clip of the row's ratio: the geometric mean of its tokens' ratios.

    GSPO, arXiv 2507.18071, in its form for single tokens (GSPO-token): each has the row's ratio
    and its own gradient, so that tokens may have different weights. Where all weights of a row are
    the same, as with `SequenceMean`, it is GSPO itself. The tokens of a row are those with a policy
    weight.

    Attributes:
        low: Lower distance of the row's ratio from 1, in (0, 1).
        high: Upper distance, above 0.
    """

    low: float = 3e-4
    high: float = 4e-4

    def __post_init__(self) -> None:
        _LOW.check("low", self.low)
        _HIGH.check("high", self.high)

    def factor(self, weight: Tensor, logp: Tensor, old_logp: Tensor) -> Factor:  # noqa: D102
        log_ratio = logp - old_logp
        num_tokens = (weight != 0).sum(dim=1, keepdim=True).clamp(min=1)
        of_row = log_ratio.detach().sum(dim=1, keepdim=True) / num_tokens
        return PPOClip(self.low, self.high)._clipped(
            weight, of_row + log_ratio - log_ratio.detach()
        )


def _check_no_bounds(clip: PPOClip) -> None:
    for name in ("high", "dual"):
        if getattr(clip, name) is not None:
            raise ValueError(
                f"`{name}` ({getattr(clip, name)!r}) without `low`: a `PPOClip` has all bounds of "
                "its own, or none, which means the config's. Give `low` too, such as 0.2, or set "
                "`clip_param_high` or `dual_clip` of the config."
            )
