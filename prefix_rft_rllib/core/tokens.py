"""The token columns: their shapes, their regions, and the one alignment rule.

Letters: B rows (sequences), T positions. Rows are right-padded. **Every per-token column describes
the token at that position**: its own log probability, its own entropy, its own weight. A causal
model's logits at position t - 1 predict the token at t; the two functions at the end of this file
are the only place where that shift is written.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


class Region(enum.IntEnum):
    """What a token is. Every position has exactly one region."""

    PADDING = 0
    PROMPT = 1
    PREFIX = 2
    """Demonstration tokens given to a rollout at its reset."""
    RESPONSE = 3
    """Tokens the policy sampled, the end token included."""
    DEMONSTRATION = 4
    """Tokens of a whole demonstration that is a batch row of its own."""


TRAINABLE_REGIONS = {
    "prefix": Region.PREFIX,
    "response": Region.RESPONSE,
    "demonstration": Region.DEMONSTRATION,
}
"""The regions a rule may name. Prompt and padding are in none, so they never carry weight."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenColumns:
    """Rows of one minibatch (or of one learner's share of it) as right-padded tensors.

    Attributes:
        input_ids: Token ids. Shape (B, T), int64. Any valid id at padding.
        region: `Region` codes. Shape (B, T), int8.
        advantage: Advantage of the row's trajectory. Shape (B,), float32. 0 for demonstration rows
            that are no group members.
        reward: Reward of the row's response. Shape (B,), float32. NaN for demonstration rows that
            are no group members: nobody graded them.
        row_index: Position of the row in the global minibatch. Shape (B,), int64. Unique over all
            learners; breaks ties in selections.
        row_key: Hash of seed, iteration, problem and member. Shape (B,), int64. Source of the
            `Random` selection.
        is_member: True for rollouts and for demonstrations that are members of a group; the rows
            that `ConstantLength` counts. Shape (B,), bool.
        engine_logp: Log probability at which the engine sampled the token. Shape (B, T), float32;
            NaN where the engine sampled nothing.
        old_logp: Log probability under the policy that sampled, recomputed by the learner at the
            sampling temperature. Shape (B, T), float32. None before the old-policy pass.
        entropy: Entropy of that policy at the token, in nats. Shape (B, T), float32. None before
            the old-policy pass.
        importance_weight: Truncated importance weight of sampled tokens (`importance_weights`), 1
            elsewhere. Shape (B, T), float32. None where it is not used.
    """

    input_ids: Tensor
    region: Tensor
    advantage: Tensor
    reward: Tensor
    row_index: Tensor
    row_key: Tensor
    is_member: Tensor
    engine_logp: Tensor
    old_logp: Tensor | None = None
    entropy: Tensor | None = None
    importance_weight: Tensor | None = None

    def __post_init__(self) -> None:
        shape = self.input_ids.shape
        for name, column in self._columns().items():
            expected = shape[:1] if column.ndim == 1 else shape
            assert column.shape == expected, f"{name}: {column.shape} does not fit {shape}"

    def _columns(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def num_rows(self) -> int:
        """Number of rows B."""
        return self.input_ids.shape[0]

    @property
    def is_padding(self) -> Tensor:
        """True where there is no token. Shape (B, T), bool."""
        return self.region == Region.PADDING

    @property
    def is_prefix(self) -> Tensor:
        """True at demonstration tokens given to a rollout. Shape (B, T), bool."""
        return self.region == Region.PREFIX

    @property
    def is_response(self) -> Tensor:
        """True at sampled tokens. Shape (B, T), bool."""
        return self.region == Region.RESPONSE

    @property
    def is_demonstration(self) -> Tensor:
        """True at the tokens of demonstration rows. Shape (B, T), bool."""
        return self.region == Region.DEMONSTRATION

    @property
    def is_answer(self) -> Tensor:
        """True at all tokens after the prompt. Shape (B, T), bool."""
        return self.is_prefix | self.is_response | self.is_demonstration

    def in_region(self, name: str) -> Tensor:
        """True inside the region with this name.

        Args:
            name: A key of `TRAINABLE_REGIONS`.

        Returns:
            Shape (B, T), bool.
        """
        return self.region == TRAINABLE_REGIONS[name]

    def rows(self, indices: Tensor | slice) -> TokenColumns:
        """Some of the rows, in the given order.

        Args:
            indices: Row numbers (int64), a bool mask of shape (B,), or a slice.

        Returns:
            New columns; the width T stays.
        """
        return dataclasses.replace(
            self, **{name: column[indices] for name, column in self._columns().items()}
        )

    def to(self, device: torch.device | str) -> TokenColumns:
        """The same columns on a device.

        Args:
            device: Where the tensors shall be.

        Returns:
            New columns.
        """
        return dataclasses.replace(
            self, **{name: column.to(device) for name, column in self._columns().items()}
        )


def pad_rows(
    rows: Sequence[Sequence[float] | np.ndarray],
    *,
    pad_value: float,
    dtype: torch.dtype,
    num_positions: int | None = None,
) -> Tensor:
    """Stack rows of different lengths, padded on the right.

    Args:
        rows: B one-dimensional arrays.
        pad_value: Value behind the end of each row.
        dtype: Type of the result.
        num_positions: Width T of the result; the longest row if not given.

    Returns:
        Shape (B, T), `dtype`.

    Raises:
        ValueError: If a row is longer than `num_positions`.
    """
    longest = max((len(row) for row in rows), default=0)
    width = longest if num_positions is None else num_positions
    if longest > width:
        raise ValueError(f"`num_positions` ({width}) is shorter than the longest row ({longest}).")
    padded = torch.full((len(rows), width), pad_value, dtype=dtype)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.as_tensor(np.asarray(row), dtype=dtype)
    return padded


def next_token_targets(input_ids: Tensor) -> Tensor:
    """The token that the logits at each position predict.

    Args:
        input_ids: Token ids. Shape (B, T).

    Returns:
        Shape (B, T - 1): for position t the token at t + 1. The last position predicts nothing
        that is known.
    """
    return input_ids[:, 1:]


def is_before_target(attends: Tensor, is_target: Tensor, *, packed: bool) -> Tensor:
    """Where the hidden states are that predict the target tokens.

    Args:
        attends: False at padding. Shape (B, T), bool.
        is_target: True at targets; never at the first token of a row. Shape (B, T), bool.
        packed: Whether the rows were run as one, without padding.

    Returns:
        Shape (B, T), or (1, number of tokens) if packed; bool, with as many marks as targets and in
        their order.
    """
    before = functional.pad(is_target[:, 1:], (0, 1))
    return before[attends][None] if packed else before


def rows_of_observations(observations: Tensor) -> tuple[Tensor, Tensor]:
    """Rows for a model from observations of a token environment.

    Args:
        observations: Tokens so far, prompt first, right-padded with -1. Shape (B, W), any dtype.

    Returns:
        input_ids and attends, shapes (B, T), int64 and bool: T is the longest row, ids are 0 at
        padding, where `attends` is False.

    Raises:
        ValueError: For another shape, an empty batch, or a row without a token, with padding
            before one, or with something else than whole numbers of at least -1.
    """
    if observations.ndim != 2 or len(observations) == 0:
        raise ValueError(
            "`obs` must be a batch of observations, shape (B, tokens of the environment's window), "
            f"got {tuple(observations.shape)}. Of one observation use obs[None]."
        )
    tokens = observations.long()
    attends = tokens >= 0
    lengths = attends.sum(1)
    positions = torch.arange(observations.shape[1], device=observations.device)
    is_misplaced = attends != (positions < lengths[:, None])
    is_no_id = (tokens != observations) | (tokens < -1)
    is_wrong = (lengths == 0) | (is_misplaced | is_no_id).any(1)
    if is_wrong.any():
        raise ValueError(
            f"`obs[{int(is_wrong.nonzero()[0])}]` must be tokens followed by padding of -1, at "
            "least one token: give observations as reset() and step() return them."
        )
    width = int(lengths.max())
    return tokens[:, :width].clamp(min=0), attends[:, :width]


def shift_to_targets(predictions: Tensor) -> Tensor:
    """Move per-position predictions to the tokens they are about.

    Args:
        predictions: A quantity computed from the logits at positions 0 to T - 2, such as the log
            probability of `next_token_targets`. Shape (B, T - 1).

    Returns:
        Shape (B, T): column t holds what was predicted at t - 1; column 0, which nothing predicts,
        is 0. Differentiable.
    """
    return functional.pad(predictions, (1, 0))
