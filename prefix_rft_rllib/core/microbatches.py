"""Cutting rows into micro-batches by a budget of computed tokens."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefix_rft_rllib.core.prefix_tree import num_shared, sort_key, unpadded_rows
from prefix_rft_rllib.core.tokens import Region


class MicroBatch(NamedTuple):
    """Rows of one forward and backward pass.

    Attributes:
        rows: Row numbers, int64.
        width: Length of the longest.
        shares_prompts: Whether tokens that rows share are computed once.
    """

    rows: Tensor
    width: int
    shares_prompts: bool = False

    def batch_of(self, input_ids: Tensor, region: Tensor) -> dict[str, Any]:
        """What a model is given for this pass.

        Args:
            input_ids: Token ids of all rows. Shape (B, T), int64.
            region: `Region` codes. Shape (B, T), int8.

        Returns:
            Both of these rows alone, cut to `width`, and `shares_prompts`, by name.
        """
        return {
            "input_ids": input_ids[self.rows, : self.width],
            "region": region[self.rows, : self.width],
            "shares_prompts": self.shares_prompts,
        }


def row_lengths(region: Tensor) -> list[int]:
    """Tokens of each row, padding left out.

    Args:
        region: `Region` codes. Shape (B, T), int8.

    Returns:
        B lengths.
    """
    return (region != Region.PADDING).sum(dim=1).tolist()


def microbatches(lengths: Sequence[int], max_tokens: int) -> list[tuple[Tensor, int]]:
    """Group rows of similar length so that rows times longest row stays within a budget.

    Args:
        lengths: Tokens of each row.
        max_tokens: Budget of padded tokens. A row longer than it forms a micro-batch of its own.

    Returns:
        Pairs of row numbers (int64) and width, the longest first, so that a lack of memory shows
        at once. Every row is in exactly one.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    batches: list[tuple[Tensor, int]] = []
    start = 0
    while start < len(order):
        width = lengths[order[start]]
        count = max(1, max_tokens // width)
        batches.append((torch.tensor(order[start : start + count]), width))
        start += count
    return batches


def tree_microbatches(
    rows: Sequence[np.ndarray], prompts: Sequence[bytes], max_tokens: int
) -> list[tuple[Tensor, int]]:
    """Group rows so that the tokens of their prefix tree stay within a budget.

    Rows of one prompt stay together where their tree fits, so that few prompts are computed twice.

    Args:
        rows: Tokens of each row, int64.
        prompts: The prompt of each row; equal ones are equal.
        max_tokens: Budget of a tree's tokens. A row longer than it forms a micro-batch of its own.

    Returns:
        Pairs of row numbers (int64) and a number of tokens that the tree has at most, the largest
        first. Every row is in exactly one.
    """
    order = sorted(range(len(rows)), key=lambda row: (prompts[row], sort_key(rows[row])))
    batches: list[tuple[list[int], int]] = []
    current: list[int] = []
    used = 0
    for _, members in itertools.groupby(order, key=prompts.__getitem__):
        group = list(members)
        shared = [num_shared(rows[a], rows[b]) for a, b in itertools.pairwise(group)]
        if current and used + sum(len(rows[row]) for row in group) - sum(shared) > max_tokens:
            batches.append((current, used))
            current, used = [], 0
        for row, known in zip(group, [0, *shared], strict=True):
            if current and used + len(rows[row]) - known > max_tokens:
                batches.append((current, used))
                current, used, known = [], 0, 0
            current.append(row)
            used += len(rows[row]) - known
    if current:
        batches.append((current, used))
    batches.sort(key=lambda batch: -batch[1])
    return [(torch.tensor(rows_of), tokens) for rows_of, tokens in batches]


def passes_of(
    input_ids: Tensor,
    region: Tensor,
    rows: Tensor,
    *,
    max_tokens: int,
    min_saved_fraction: float | None,
) -> list[MicroBatch]:
    """The micro-batches of some rows, with what rows of one prompt share computed once or not.

    Args:
        input_ids: Token ids of all rows, right-padded. Shape (B, T), int64.
        region: `Region` codes. Shape (B, T), int8.
        rows: Numbers of the rows to take, int64.
        max_tokens: Budget of computed tokens of one micro-batch, padding included.
        min_saved_fraction: Share of the padded tokens that sharing must save, in [0, 1]; None to
            never share. Rows of which no two have the same prompt do not share.

    Returns:
        Micro-batches with numbers among all rows, the longest first.
    """
    region = region[rows]
    lengths = row_lengths(region)
    padded = microbatches(lengths, max_tokens)
    if min_saved_fraction is not None:
        tokens = unpadded_rows(input_ids[rows], region)
        num_prompt = (region == Region.PROMPT).sum(dim=1).tolist()
        prompts = [sort_key(row[:n]) for row, n in zip(tokens, num_prompt, strict=True)]
        trees = tree_microbatches(tokens, prompts, max_tokens)
        num_padded = sum(len(part) * width for part, width in padded)
        num_computed = sum(count for _, count in trees)
        if len(set(prompts)) < len(prompts) and (
            num_computed <= (1 - min_saved_fraction) * num_padded
        ):
            return [
                MicroBatch(rows[part], max(lengths[row] for row in part.tolist()), True)
                for part, _ in trees
            ]
    return [MicroBatch(rows[part], width) for part, width in padded]
