"""Which tokens of a region keep their weight: all, top entropy, bottom entropy, or random.

A selection pools over all rows of the *global* minibatch, over the learners too. Every learner
gathers the same candidates in the same order and takes the same decision, so that the result does
not depend on how rows are dealt.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Collection
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from prefix_rft_rllib.basics.old_names import renamed
from prefix_rft_rllib.basics.ranges import SHARE
from prefix_rft_rllib.basics.shares import ceil_share
from prefix_rft_rllib.core.shown_columns import shown_to
from prefix_rft_rllib.core.token_draws import hash_uniform
from prefix_rft_rllib.core.tokens import TokenColumns

# A token's place in the global minibatch as one number: row_index * 2**32 + position.
_ROW_STRIDE = 1 << 32


class Collectives:
    """The learners that hold the rows of one global minibatch; this one is alone.

    A subclass for several learners overrides both methods with collectives. All learners make the
    same calls in the same order, learners without rows included.
    """

    def all_gather_1d(self, values: Tensor) -> Tensor:
        """The learners' values, one after the other.

        Args:
            values: Shape (N,), any dtype; N may differ between learners and may be 0.

        Returns:
            Shape (sum of N,), in the same order on every learner.
        """
        return values

    def sum(self, count: int) -> int:
        """The sum of a count over the learners.

        Args:
            count: This learner's count.

        Returns:
            The same number on every learner.
        """
        return count


class Keep(abc.ABC):
    """A selection: ranks tokens and keeps a share of them."""

    keep_fraction: float
    """Share of the region's tokens to keep, in [0, 1]."""

    @property
    def reads(self) -> Collection[str]:
        """Which of the columns `old_logp`, `entropy` and `reward` `priority` reads."""
        return frozenset()

    @abc.abstractmethod
    def priority(self, columns: TokenColumns) -> Tensor | None:
        """The rank of each token.

        Args:
            columns: The rows.

        Returns:
            Shape (B, T); the highest are kept. None to keep all.
        """


@dataclasses.dataclass(frozen=True)
class All(Keep):
    """Every token of the region keeps its weight."""

    def priority(self, columns: TokenColumns) -> Tensor | None:  # noqa: D102
        return None


@dataclasses.dataclass(frozen=True)
class _Share(Keep):
    """A share of the region.

    Attributes:
        keep_fraction: Share of the region to keep, in [0, 1].
    """

    keep_fraction: float

    def __post_init__(self) -> None:
        SHARE.check("keep_fraction", self.keep_fraction)


@dataclasses.dataclass(frozen=True)
class _EntropyShare(_Share):
    """A share by entropy."""

    reads = frozenset({"entropy"})


@dataclasses.dataclass(frozen=True)
class TopEntropy(_EntropyShare):
    """The tokens at which the sampling policy was least certain.

    Limits how many demonstration tokens may move the policy (Prefix-RFT, Sec. 3 "Entropy-based
    Clipping"; 0.2 in App. A.2).
    """

    def priority(self, columns: TokenColumns) -> Tensor:  # noqa: D102
        assert columns.entropy is not None
        return columns.entropy


@dataclasses.dataclass(frozen=True)
class BottomEntropy(_EntropyShare):
    """The tokens at which the sampling policy was most certain (a control)."""

    def priority(self, columns: TokenColumns) -> Tensor:  # noqa: D102
        assert columns.entropy is not None
        return -columns.entropy


@dataclasses.dataclass(frozen=True)
class Random(_Share):
    """Tokens at random, from the rows' keys (a control)."""

    def priority(self, columns: TokenColumns) -> Tensor:  # noqa: D102
        return hash_uniform(columns.row_key, columns.input_ids.shape[1])


class Selection(NamedTuple):
    """The outcome of a selection.

    Attributes:
        is_kept: True at tokens that keep their weight. Shape (B, T), bool; only inside the region.
        num_region_tokens: Tokens of the region in the global minibatch, N.
        num_kept_tokens: Of these, how many are kept: ceil(keep_fraction * N).
    """

    is_kept: Tensor
    num_region_tokens: int
    num_kept_tokens: int


def select_tokens(
    keep: Keep, columns: TokenColumns, is_region: Tensor, collectives: Collectives | None = None
) -> Selection:
    """Apply a selection to a region of the global minibatch.

    Keeps the ceil(keep_fraction * N) tokens of highest priority, N counted over all learners; ties
    go to the earlier row (`row_index`), then to the earlier position. The product is rounded to
    nine decimals before the ceil, so that 0.07 of 100 tokens are 7 although 0.07 * 100 > 7 in
    binary. The ceil makes the selection of a short prefix never empty.

    Args:
        keep: The selection.
        columns: This learner's rows.
        is_region: True where a token may be chosen. Shape (B, T), bool.
        collectives: The learners that share the minibatch; one by default.

    Returns:
        The kept tokens among this learner's rows, and the global counts.

    Raises:
        ValueError: If a selection reads a column that is not there or that it does not declare, or
            an entropy that is not a number.
    """
    collectives = collectives or Collectives()
    priority = keep.priority(shown_to(keep, columns))
    if priority is None:
        num_region_tokens = collectives.sum(int(is_region.sum()))
        return Selection(is_region, num_region_tokens, num_region_tokens)
    own_priority = priority[is_region]
    own_place = _places(columns)[is_region]
    places = collectives.all_gather_1d(own_place)
    priorities = collectives.all_gather_1d(own_priority)
    if bool(priorities.isnan().any()):
        raise ValueError(
            "A token to select from has the entropy NaN; the policy's logits overflow."
        )
    num_kept = ceil_share(keep.keep_fraction, len(places))
    kept_places = _highest(priorities, places, num_kept)
    is_kept = torch.zeros_like(is_region)
    is_kept[is_region] = torch.isin(own_place, kept_places)
    return Selection(is_kept, len(places), num_kept)


def _places(columns: TokenColumns) -> Tensor:
    position = torch.arange(columns.input_ids.shape[1], device=columns.input_ids.device)
    return columns.row_index[:, None] * _ROW_STRIDE + position[None, :]


def _highest(priorities: Tensor, places: Tensor, count: int) -> Tensor:
    """The places of the highest priorities; equal priorities in the order of their places."""
    places, order = torch.sort(places)
    ranking = torch.sort(priorities[order], descending=True, stable=True).indices
    return places[ranking[:count]]


__getattr__ = partial(renamed, __name__)
