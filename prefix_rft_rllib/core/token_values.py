"""What a token is worth before selection and scale."""

from __future__ import annotations

import abc
import dataclasses

import torch
from torch import Tensor

from prefix_rft_rllib.core.coefficients import Coefficient
from prefix_rft_rllib.core.tokens import TokenColumns


class Value(abc.ABC):
    """What a token of the region is worth before selection and scale."""

    @abc.abstractmethod
    def base(self, columns: TokenColumns, iteration: int) -> Tensor:
        """The part known before the update.

        Args:
            columns: The rows.
            iteration: Training iteration, from 0, for values on a schedule.

        Returns:
            One value per row, shape (B,), or per token, shape (B, T).
        """

    def shape(self, logp: Tensor) -> Tensor | None:
        """The factor that depends on the policy being trained.

        Args:
            logp: Its log probabilities, detached. Shape (B, T).

        Returns:
            A factor of the base value, shape (B, T), or None for none.
        """
        return None


@dataclasses.dataclass(frozen=True)
class TrajectoryAdvantage(Value):
    """The advantage of the token's trajectory, the same at all its tokens."""

    def base(self, columns: TokenColumns, iteration: int) -> Tensor:  # noqa: D102
        return columns.advantage


@dataclasses.dataclass(frozen=True)
class Constant(Value):
    """The same number for every token.

    Attributes:
        value: The number.
    """

    value: float = 1.0

    def base(self, columns: TokenColumns, iteration: int) -> Tensor:  # noqa: D102
        return torch.full_like(columns.advantage, self.value)


@dataclasses.dataclass(frozen=True)
class Scheduled(Value):
    """Another value times a coefficient that changes over iterations.

    Attributes:
        value: The value.
        coefficient: Its factor.
    """

    value: Value
    coefficient: Coefficient

    def base(self, columns: TokenColumns, iteration: int) -> Tensor:  # noqa: D102
        return self.value.base(columns, iteration) * self.coefficient.at(iteration)

    def shape(self, logp: Tensor) -> Tensor | None:  # noqa: D102
        return self.value.shape(logp)


@dataclasses.dataclass(frozen=True)
class PolicyShaped(Value):
    """The advantage, shaped by the policy's own probability p of the token (LUFFY).

    LUFFY maximizes A * f(p) with f(p) = p / (p + gamma), without a ratio to an old policy (arXiv
    2504.14945, Sec. 3.2). Its gradient is that of log p with the weight A * p * f'(p) =
    A * gamma * p / (p + gamma)^2: largest where p = gamma, so that unlikely tokens count more than
    under f(p) = p.

    Attributes:
        gamma: Where the weight is largest, above 0.
    """

    gamma: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.gamma, int | float) or not self.gamma > 0:
            raise ValueError(f"`gamma` must be above 0, got {self.gamma!r}. LUFFY uses 0.1.")

    def base(self, columns: TokenColumns, iteration: int) -> Tensor:  # noqa: D102
        return columns.advantage

    def shape(self, logp: Tensor) -> Tensor:  # noqa: D102
        p = logp.exp()
        return self.gamma * p / (p + self.gamma).square()


@dataclasses.dataclass(frozen=True)
class Undecided(Value):
    """phi = p * (1 - p): largest for tokens the policy neither masters nor rules out (CHORD).

    arXiv 2508.11408, Sec. 3.3. p is the policy's probability of the token, detached.
    """

    def base(self, columns: TokenColumns, iteration: int) -> Tensor:  # noqa: D102
        return torch.ones_like(columns.advantage)

    def shape(self, logp: Tensor) -> Tensor:  # noqa: D102
        # 1 - p by expm1: exact where p is near 1.
        return -logp.exp() * torch.expm1(logp)
