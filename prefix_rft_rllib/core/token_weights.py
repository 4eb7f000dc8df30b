"""Credit for one token: rules and the two weight streams (the paper's unified view).

A method is a list of rules. Each says, for one region: into which stream its weights go, what a
token is worth, which tokens keep their worth, and what the rule's sum is divided by. Rules add up.
The loss reads the two resulting tensors and knows no method.

Two steps: `prepare_weights` once per *global* minibatch folds advantages, selections and scales
into static weights; `PreparedWeights.weights` adds, per micro-batch, the factors that depend on
the current policy. Micro-batches therefore never change a weight.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from prefix_rft_rllib.basics.ranges import one_of
from prefix_rft_rllib.core.shown_columns import check_reads, shown_to
from prefix_rft_rllib.core.token_selection import All, Collectives, Keep, select_tokens
from prefix_rft_rllib.core.token_values import Value
from prefix_rft_rllib.core.tokens import TRAINABLE_REGIONS, TokenColumns

STREAMS = ("policy", "imitation")
"""`policy` weights enter the clipped surrogate, `imitation` weights multiply the plain logp."""


class Scale(abc.ABC):
    """What a rule's sum over tokens is divided by. Never the padded width."""

    @abc.abstractmethod
    def divisor(
        self,
        columns: TokenColumns,
        is_region: Tensor,
        max_response_tokens: int,
        collectives: Collectives,
    ) -> Tensor:
        """The number each row's weights are divided by.

        Args:
            columns: This learner's rows.
            is_region: The rule's region, kept or not. Shape (B, T), bool.
            max_response_tokens: T_max.
            collectives: The learners that share the minibatch. Every learner makes the same calls.

        Returns:
            Shape (B,), float64. Of no meaning for rows without a token of the region.
        """


@dataclasses.dataclass(frozen=True)
class ConstantLength(Scale):
    """Rows of the global minibatch times the longest response (Dr.GRPO).

    The rows are those with `is_member`: all rollouts, whatever their advantage, and demonstrations
    that are members of a group. A long and a short response weigh the same per token.
    """

    def divisor(  # noqa: D102
        self,
        columns: TokenColumns,
        is_region: Tensor,
        max_response_tokens: int,
        collectives: Collectives,
    ) -> Tensor:
        num_members = collectives.sum(int(columns.is_member.sum()))
        # Counted over the learners too: all of them raise, or none.
        num_tokens = collectives.sum(int(is_region.sum()))
        if num_members == 0 and num_tokens > 0:
            raise ValueError(
                "`ConstantLength` divides by the number of rollouts, but this minibatch has none. "
                "A rule of a method without rollouts needs another scale, such as `TokenMean()`."
            )
        return torch.full_like(
            columns.advantage, num_members * max_response_tokens, dtype=torch.float64
        )


@dataclasses.dataclass(frozen=True)
class TokenMean(Scale):
    """The rule's region tokens in the global minibatch, whether a selection keeps them or not.

    With `Constant(1)` and `All()` the rule's term is the mean over tokens, whatever the lengths of
    the rows; never a mean of per-row or per-micro-batch means.
    """

    def divisor(  # noqa: D102
        self,
        columns: TokenColumns,
        is_region: Tensor,
        max_response_tokens: int,
        collectives: Collectives,
    ) -> Tensor:
        num_tokens = collectives.sum(int(is_region.sum()))
        return torch.full_like(columns.advantage, num_tokens, dtype=torch.float64)


@dataclasses.dataclass(frozen=True)
class SequenceMean(Scale):
    """Rows of the global minibatch with region tokens, times the row's own region tokens.

    The mean over rows of the mean over the row's tokens (GRPO's normalization). Rows without a
    token of the region do not count; tokens that a selection drops do.
    """

    def divisor(  # noqa: D102
        self,
        columns: TokenColumns,
        is_region: Tensor,
        max_response_tokens: int,
        collectives: Collectives,
    ) -> Tensor:
        num_rows = collectives.sum(int(is_region.any(dim=1).sum()))
        return is_region.sum(dim=1).to(torch.float64) * num_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """Credit for the tokens of one region.

    Attributes:
        region: "prefix", "response" or "demonstration".
        stream: "policy" (the clipped surrogate) or "imitation" (plain log probability).
        value: What a token is worth.
        keep: Which tokens keep their worth; the others get weight 0 and stay in every divisor.
        scale: What the rule's sum is divided by.
    """

    region: str
    stream: str
    value: Value
    keep: Keep = dataclasses.field(default_factory=All)
    scale: Scale = dataclasses.field(default_factory=ConstantLength)

    def __post_init__(self) -> None:
        one_of(TRAINABLE_REGIONS).check("region", self.region)
        one_of(STREAMS).check("stream", self.stream)
        check_reads(self.value)
        check_reads(self.keep)

    @property
    def reads(self) -> frozenset[str]:
        """Which of the columns `old_logp`, `entropy` and `reward` its value and selection read."""
        return frozenset(self.value.reads) | frozenset(self.keep.reads)


class TokenWeights(NamedTuple):
    """The two weight streams, detached, scales included.

    Attributes:
        policy: Weights of the clipped surrogate. Shape (B, T), float32.
        imitation: Weights of the log probability. Shape (B, T), float32.
    """

    policy: Tensor
    imitation: Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleWeights:
    """One rule, folded for one global minibatch.

    Attributes:
        rule: The rule.
        static: Base value over divisor at kept tokens, 0 elsewhere. Shape (B, T), float32.
        is_kept: True at kept tokens, those of weight 0 included. Shape (B, T), bool.
        num_region_tokens: Tokens of the region in the global minibatch.
        num_kept_tokens: Of these, how many the selection keeps.
    """

    rule: Rule
    static: Tensor
    is_kept: Tensor
    num_region_tokens: int
    num_kept_tokens: int

    def weights(self, logp: Tensor) -> Tensor:
        """The rule's weights at the current policy.

        Args:
            logp: Log probabilities of the policy being trained. Shape (B, T).

        Returns:
            Shape (B, T), float32, detached.
        """
        factor = self.rule.value.policy_factor(logp.detach())
        if factor is None:
            return self.static
        # `where`: a factor may be infinite at padding, and 0 * inf is not 0.
        return torch.where(self.static != 0, self.static * factor, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedWeights:
    """All rules, folded for one global minibatch.

    Attributes:
        rules: One entry per rule, in the method's order.
        is_active: See `active_rows`. Shape (B,), bool.
    """

    rules: tuple[RuleWeights, ...]
    is_active: Tensor

    def rows(self, indices: Tensor | slice) -> PreparedWeights:
        """The weights of some of the rows: one micro-batch.

        Args:
            indices: Row numbers (int64), a bool mask of shape (B,), or a slice.

        Returns:
            Prepared weights of these rows; the global counts stay.
        """
        rules = tuple(
            dataclasses.replace(rule, static=rule.static[indices], is_kept=rule.is_kept[indices])
            for rule in self.rules
        )
        return PreparedWeights(rules=rules, is_active=self.is_active[indices])

    def weights(self, logp: Tensor) -> TokenWeights:
        """The two streams at the current policy.

        Args:
            logp: Log probabilities of the policy being trained, of these rows. Shape (B, T).

        Returns:
            The sum of the rules per stream, detached. 0 in regions without a rule.
        """
        streams = {stream: torch.zeros_like(logp.detach()) for stream in STREAMS}
        for rule in self.rules:
            streams[rule.rule.stream] += rule.weights(logp)
        return TokenWeights(**streams)

    def active_rows(self) -> Tensor:
        """Rows that can move the policy; the others may be skipped in the training pass.

        Returns:
            True where any static weight is not 0. Shape (B,), bool.
        """
        return self.is_active


def token_values(rule: Rule, columns: TokenColumns, iteration: int) -> Tensor:
    """What a rule gives each token before selection and scale, the policy's own factor left out.

    Args:
        rule: The rule.
        columns: The rows.
        iteration: Training iteration, from 0, for values on a schedule.

    Returns:
        Shape (B, T) or (B, 1), float64: the value's base, for the policy stream times the
        `importance_weight` of the columns, if they have one.
    """
    base = rule.value.base(shown_to(rule.value, columns), iteration).to(torch.float64)
    base = base if base.ndim == 2 else base[:, None]
    if rule.stream == "policy" and columns.importance_weight is not None:
        base = base * columns.importance_weight
    return base


def prepare_weights(
    rules: tuple[Rule, ...],
    columns: TokenColumns,
    *,
    max_response_tokens: int,
    iteration: int = 0,
    collectives: Collectives | None = None,
) -> PreparedWeights:
    """Fold advantages, selections and scales of one global minibatch into static weights.

    Args:
        rules: The method's rules.
        columns: This learner's rows of the minibatch, after the old-policy pass if a value or a
            selection reads what it writes.
        max_response_tokens: T_max.
        iteration: Training iteration, from 0, for values on a schedule.
        collectives: The learners that share the minibatch; one by default. All of them must call
            this function.

    Returns:
        The weights of this learner's rows. Weights are global: the *sum* of the learners' losses
        is the loss of the minibatch, so where gradients are averaged over learners the loss has to
        be multiplied by their number.

    Raises:
        ValueError: If a selection or a scale does not fit the minibatch, or a piece reads a column
            that is not there or that it does not declare.
    """
    collectives = collectives or Collectives()
    assert columns.row_index.unique().numel() == columns.num_rows, "row_index must be unique"
    is_active = torch.zeros_like(columns.is_member)
    prepared = []
    for rule in rules:
        is_region = columns.in_region(rule.region)
        assert not bool(is_region[:, :1].any()), "no logits predict position 0; it is prompt"
        selection = select_tokens(rule.keep, columns, is_region, collectives)
        divisor = rule.scale.divisor(columns, is_region, max_response_tokens, collectives)
        base = token_values(rule, columns, iteration)
        # One rounding to float32, whatever the order of the factors.
        scaled = base / divisor[:, None]
        static = torch.where(selection.is_kept, scaled, 0.0).to(torch.float32)
        is_active = is_active | (static != 0).any(dim=1)
        prepared.append(
            RuleWeights(
                rule=rule,
                static=static,
                is_kept=selection.is_kept,
                num_region_tokens=selection.num_region_tokens,
                num_kept_tokens=selection.num_kept_tokens,
            )
        )
    return PreparedWeights(rules=tuple(prepared), is_active=is_active)
