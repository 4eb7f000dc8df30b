"""Cutting rows into micro-batches by a budget of padded tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor

from prefix_rft_rllib.core.tokens import Region


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
