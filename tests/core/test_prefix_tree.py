"""Rows that begin alike as a tree, and their micro-batches, against sets of beginnings."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.core.microbatches import passes_of, tree_microbatches
from prefix_rft_rllib.core.prefix_tree import num_shared, prefix_tree, sort_key
from prefix_rft_rllib.core.tokens import Region, pad_rows

# Few token ids and short rows: many begin alike, some are equal, some end inside others.
ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8)


def columns_of(rows, num_prompts=None):
    """Padded ids and regions; a prompt of one token unless told otherwise."""
    num_prompts = num_prompts or [1] * len(rows)
    input_ids = pad_rows(rows, pad_value=9, dtype=torch.int64)
    codes = [
        [Region.PROMPT] * n + [Region.RESPONSE] * (len(row) - n)
        for row, n in zip(rows, num_prompts, strict=True)
    ]
    return input_ids, pad_rows(codes, pad_value=Region.PADDING, dtype=torch.int8)


def beginnings(rows):
    """All different beginnings of rows: the nodes of their tree."""
    return {tuple(row[: end + 1]) for row in rows for end in range(len(row))}


def test_a_tree_by_hand():
    # Two rows of the prompt 5 6 with their first token alike, one that ends in it, another prompt.
    rows = [[5, 6, 1, 2], [3, 4], [5, 6, 1, 3, 4], [5, 6]]
    tree = prefix_tree(*columns_of(rows))
    # In order: 3 4 | 5 6 | . . 1 2 | . . . 3 4.
    assert tree.branches == ((1, 0, 2), (3, 0, 2), (0, 2, 4), (2, 3, 5))
    assert tree.num_nodes == 8
    assert tree.node.tolist() == [
        [2, 3, 4, 5, 0],
        [0, 1, 0, 0, 0],
        [2, 3, 4, 6, 7],
        [2, 3, 0, 0, 0],
    ]
    assert tree.positions.tolist() == [0, 1, 0, 1, 2, 3, 3, 4]
    assert tree.parents[[1, 3, 4, 5, 6, 7]].tolist() == [0, 2, 3, 4, 4, 6]
    assert tree.paths.tolist() == [0, 1, 2, 3, 2, 3, 4, 5, 2, 3, 4, 6, 7]


@given(ROWS)
def test_nodes_are_the_different_beginnings_of_rows(rows):
    tree = prefix_tree(*columns_of(rows))
    node_of = {}
    for row, nodes in zip(rows, tree.node.tolist(), strict=True):
        for end in range(len(row)):
            assert node_of.setdefault(tuple(row[: end + 1]), nodes[end]) == nodes[end]
    assert sorted(node_of.values()) == list(range(tree.num_nodes))
    width = max(map(len, rows))
    for beginning, node in node_of.items():
        row, position = divmod(int(tree.place[node]), width)
        assert tuple(rows[row][: position + 1]) == beginning
        assert int(tree.positions[node]) == len(beginning) - 1
        if len(beginning) > 1:
            assert int(tree.parents[node]) == node_of[beginning[:-1]]
    # The own nodes of the branches are all nodes, in their order.
    own = [tree.node[row, start:stop] for row, start, stop in tree.branches]
    assert torch.equal(torch.cat(own), torch.arange(tree.num_nodes))


@given(ROWS, st.integers(1, 20))
def test_trees_stay_within_the_budget(rows, max_tokens):
    arrays = [np.array(row) for row in rows]
    cuts = tree_microbatches(arrays, [sort_key(row[:1]) for row in arrays], max_tokens)
    numbers = [row for part, _ in cuts for row in part.tolist()]
    assert sorted(numbers) == list(range(len(rows)))
    counts = [count for _, count in cuts]
    assert counts == sorted(counts, reverse=True)
    for part, count in cuts:
        num_nodes = len(beginnings([rows[row] for row in part.tolist()]))
        assert num_nodes <= count
        assert count <= max_tokens or len(part) == 1


def test_rows_of_one_prompt_stay_together():
    # Trees of 4 + 1 + 1 and 3 + 2 tokens: both do not fit into 10, though one more row would.
    rows = [[7, 7, 7, 7, 1], [7, 7, 7, 7, 2], [8, 8, 8, 1], [8, 8, 8, 2]]
    arrays = [np.array(row) for row in rows]
    prompts = [sort_key(row[:-1]) for row in arrays]
    cuts = tree_microbatches(arrays, prompts, 10)
    assert [(part.tolist(), count) for part, count in cuts] == [([0, 1], 6), ([2, 3], 5)]
    # A group that does not fit is cut, and its prompt computed twice.
    cuts = tree_microbatches(arrays, prompts, 5)
    assert [(part.tolist(), count) for part, count in cuts] == [([0], 5), ([1], 5), ([2, 3], 5)]


@pytest.mark.parametrize(
    ("min_saved_fraction", "shares"), [(None, False), (0.0, True), (0.4, True), (0.41, False)]
)
def test_prompts_are_shared_where_enough_is_saved(min_saved_fraction, shares):
    # Padded 2 * 5 tokens, as a tree 4 + 1 + 1: 0.4 are saved.
    input_ids, region = columns_of([[9], [7, 7, 7, 7, 1], [7, 7, 7, 7, 2]], [1, 4, 4])
    passes = passes_of(
        input_ids,
        region,
        torch.tensor([1, 2]),
        max_tokens=100,
        min_saved_fraction=min_saved_fraction,
    )
    ((rows, width, is_shared),) = passes
    assert (rows.tolist(), width, is_shared) == ([1, 2], 5, shares)
    batch = passes[0].batch_of(input_ids, region)
    assert batch["input_ids"].tolist() == [[7, 7, 7, 7, 1], [7, 7, 7, 7, 2]]
    assert batch["shares_prompts"] is shares


def test_rows_of_different_prompts_do_not_share_what_prompts_have_in_common():
    input_ids, region = columns_of([[7, 7, 7, 1, 5], [7, 7, 7, 2, 5]], [4, 4])
    rows = torch.arange(2)
    (part,) = passes_of(input_ids, region, rows, max_tokens=100, min_saved_fraction=0.0)
    assert not part.shares_prompts


def test_no_rows_make_no_pass():
    input_ids, region = columns_of([[1, 2]])
    none = torch.zeros(0, dtype=torch.int64)
    assert passes_of(input_ids, region, none, max_tokens=9, min_saved_fraction=0.0) == []


def test_shared_tokens_are_counted_by_hand():
    assert num_shared(np.array([1, 2, 3]), np.array([1, 2, 4, 5])) == 2
    assert num_shared(np.array([1, 2]), np.array([1, 2, 4])) == 2
    assert num_shared(np.array([3]), np.array([1])) == 0
