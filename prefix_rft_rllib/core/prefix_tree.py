"""Rows that begin alike as one tree: every token that rows share is there once.

Two tokens whose rows are equal up to and including them have the same hidden states under a causal
model. They are one node; a row is a path from a root. Nodes are numbered so that the nodes that a
row adds to those of the rows before it are neighbours.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefix_rft_rllib.core.tokens import Region


class Branch(NamedTuple):
    """What one row adds to the rows before it.

    Attributes:
        row: Number of the row.
        start: Tokens that it shares with rows before it; its own nodes begin there.
        stop: Tokens of the row.
    """

    row: int
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class PrefixTree:
    """B rows of at most T tokens as N nodes.

    Attributes:
        node: Node of every token. Shape (B, T), int64; 0 at padding.
        place: Where each node is first, as row * T + position. Shape (N,), int64.
        branches: One per row, in the order in which their own nodes are numbered.
    """

    node: Tensor
    place: Tensor
    branches: tuple[Branch, ...]

    @property
    def num_nodes(self) -> int:
        """Number of nodes N."""
        return len(self.place)

    @property
    def positions(self) -> Tensor:
        """Position of each node in its rows. Shape (N,), int64."""
        return self.place % self.node.shape[1]

    @property
    def parents(self) -> Tensor:
        """The node before each node; any for a root. Shape (N,), int64."""
        return self.node.flatten()[self.place - 1]

    @property
    def paths(self) -> Tensor:
        """Nodes of all rows, one row after the other in the order of `branches`; int64."""
        return torch.cat([self.node[row, :stop] for row, _, stop in self.branches])


def prefix_tree(input_ids: Tensor, region: Tensor) -> PrefixTree:
    """The tree of right-padded rows.

    Args:
        input_ids: Token ids, not negative. Shape (B, T), int64.
        region: `Region` codes. Shape (B, T), int8.

    Returns:
        Tensors on the device of `input_ids`.
    """
    width = input_ids.shape[1]
    rows = unpadded_rows(input_ids, region)
    node = np.zeros(input_ids.shape, np.int64)
    places: list[np.ndarray] = []
    branches: list[Branch] = []
    count, last = 0, 0
    for row in sorted(range(len(rows)), key=lambda row: sort_key(rows[row])):
        start = num_shared(rows[last], rows[row]) if branches else 0
        stop = len(rows[row])
        node[row, :start] = node[last, :start]
        node[row, start:stop] = np.arange(count, count + stop - start)
        places.append(row * width + np.arange(start, stop))
        branches.append(Branch(row, start, stop))
        count, last = count + stop - start, row
    device = input_ids.device
    place = np.concatenate(places)
    return PrefixTree(
        torch.from_numpy(node).to(device), torch.from_numpy(place).to(device), tuple(branches)
    )


def unpadded_rows(input_ids: Tensor, region: Tensor) -> list[np.ndarray]:
    """The tokens of each row.

    Args:
        input_ids: Token ids, right-padded. Shape (B, T), int64.
        region: `Region` codes. Shape (B, T), int8.

    Returns:
        B arrays, int64.
    """
    lengths = (region != Region.PADDING).sum(dim=1).tolist()
    return [ids[:length] for ids, length in zip(input_ids.cpu().numpy(), lengths, strict=True)]


def sort_key(tokens: np.ndarray) -> bytes:
    """A key by which rows are ordered token by token, so that rows that begin alike are neighbours.

    Args:
        tokens: Token ids, not negative. Shape (n,), int64.
    """
    return tokens.astype(">i8").tobytes()


def num_shared(one: np.ndarray, other: np.ndarray) -> int:
    """How many tokens two rows share from their beginning on."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    return int(differs.argmax()) if differs.any() else length
