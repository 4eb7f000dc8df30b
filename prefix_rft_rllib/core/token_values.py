"""What a token is worth before selection and scale."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from prefix_rft_rllib.basics.ranges import real
from prefix_rft_rllib.core.coefficients import Coefficient
from prefix_rft_rllib.core.tokens import TokenColumns


class Value(abc.ABC):
    """What a token of the region is worth before selection and scale."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "shape" in vars(cls):
            raise TypeError(
                f"{cls.__name__}.shape would never be called: override `policy_factor`, the factor "
                "that depends on the policy being trained."
            )

    @property
    def reads(self) -> Collection[str]:
        """Which of the columns `old_logp`, `entropy` and `reward` `base` reads.

        Other columns need no mention. Rows of a rule whose value reads `old_logp` or `entropy` have
        the old-policy pass before `base` is called.
        """
        return frozenset()

    @abc.abstractmethod
    def base(self, columns: TokenColumns, iteration: int) -> Tensor:
        """The part known before the update.

        What a row is worth depends on that row alone.

        Args:
            columns: The rows; of the columns that `reads` is about those that it names.
            iteration: Training iteration, from 0, for values on a schedule.

        Returns:
            One value per row, shape (B,), or per token, shape (B, T).
        """

    def policy_factor(self, logp: Tensor) -> Tensor | None:
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

    @property
    def reads(self) -> Collection[str]:  # noqa: D102
        return self.value.reads

    def base(self, columns: TokenColumns, iteration: int) -> Tensor:  # noqa: D102
        return self.value.base(columns, iteration) * self.coefficient.at(iteration)

    def policy_factor(self, logp: Tensor) -> Tensor | None:  # noqa: D102
        return self.value.policy_factor(logp)


@dataclasses.dataclass(frozen=True)
class EntropyScaled(Value):
    """Another value times exp(power * H), H the row's mean entropy under the old policy, in nats.

    The mean is over all tokens after the prompt. SRFT (arXiv 2506.19767) trusts demonstrations less
    where the policy is unsure (`power` -1), and explores more in its own successes there (`power`
    1); it takes the entropy of the policy being trained, which is the old one in the first step.

    Attributes:
        value: The value.
        power: Factor of the entropy in the exponent, a finite number.
    """

    value: Value
    power: float = -1.0

    def __post_init__(self) -> None:
        real().advising("SRFT uses -1 and 1.").check("power", self.power)

    @property
    def reads(self) -> Collection[str]:  # noqa: D102
        return {"entropy", *self.value.reads}

    def base(self, columns: TokenColumns, iteration: int) -> Tensor:  # noqa: D102
        assert columns.entropy is not None
        entropy = torch.where(columns.is_answer, columns.entropy, 0.0).sum(1, dtype=torch.float64)
        factor = torch.exp(self.power * entropy / columns.is_answer.sum(1).clamp(min=1))
        base = self.value.base(columns, iteration)
        return base * (factor if base.ndim == 1 else factor[:, None])

    def policy_factor(self, logp: Tensor) -> Tensor | None:  # noqa: D102
        return self.value.policy_factor(logp)


@dataclasses.dataclass(frozen=True)
class Probability(Value):
    """min(1, p / threshold): the policy's own probability p of the token, up to a threshold.

    With the threshold 1 it is p: the weight that undoes the 1 / p in the gradient of log p (DFT,
    arXiv 2508.05629). With 0.1 only tokens that the policy hardly believes in count less (TrSFT,
    arXiv 2512.17636).

    Attributes:
        threshold: From this probability on a token is worth 1; in (0, 1].
    """

    threshold: float = 1.0

    def __post_init__(self) -> None:
        real(above=0, most=1).advising("TrSFT uses 0.1.").check("threshold", self.threshold)

    def base(self, columns: TokenColumns, iteration: int) -> Tensor:  # noqa: D102
        return torch.ones_like(columns.advantage)

    def policy_factor(self, logp: Tensor) -> Tensor:  # noqa: D102
        return (logp.exp() / self.threshold).clamp(max=1.0)


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
        real(above=0).advising("LUFFY uses 0.1.").check("gamma", self.gamma)

    def base(self, columns: TokenColumns, iteration: int) -> Tensor:  # noqa: D102
        return columns.advantage

    def policy_factor(self, logp: Tensor) -> Tensor:  # noqa: D102
        p = logp.exp()
        return self.gamma * p / (p + self.gamma).square()


@dataclasses.dataclass(frozen=True)
class Uncertainty(Value):
    """phi = p * (1 - p): largest for tokens the policy neither masters nor rules out (CHORD).

    arXiv 2508.11408, Sec. 3.3. p is the policy's probability of the token, detached.
    """

    def base(self, columns: TokenColumns, iteration: int) -> Tensor:  # noqa: D102
        return torch.ones_like(columns.advantage)

    def policy_factor(self, logp: Tensor) -> Tensor:  # noqa: D102
        # 1 - p by expm1: exact where p is near 1.
        return -logp.exp() * torch.expm1(logp)


Undecided = Uncertainty
"""The name under which older checkpoints hold it."""
