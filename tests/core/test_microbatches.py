"""Cutting rows into micro-batches."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.core.microbatches import microbatches, row_lengths
from tests.token_batches import make_columns


def test_lengths_leave_out_padding():
    columns = make_columns(["xxpr", "xrrrr", "xd"], [0.0] * 3, width=8)
    assert row_lengths(columns.region) == [4, 5, 2]


def test_rows_are_cut_by_hand():
    # Longest first; 2 * 5 and 3 * 3 tokens fit into 10, the row of 12 is alone.
    cuts = microbatches([3, 5, 12, 2, 4, 1], max_tokens=10)
    assert [(rows.tolist(), width) for rows, width in cuts] == [
        ([2], 12),
        ([1, 4], 5),
        ([0, 3, 5], 3),
    ]
    assert all(rows.dtype == torch.int64 for rows, _ in cuts)


def test_no_rows_make_no_micro_batch():
    assert microbatches([], max_tokens=10) == []


@given(st.lists(st.integers(1, 30), max_size=20), st.integers(1, 80))
def test_every_row_is_in_one_micro_batch_within_the_budget(lengths, max_tokens):
    cuts = microbatches(lengths, max_tokens)
    rows = [row for part, _ in cuts for row in part.tolist()]
    assert sorted(rows) == list(range(len(lengths)))
    widths = [width for _, width in cuts]
    assert widths == sorted(widths, reverse=True)
    for part, width in cuts:
        assert width == max(lengths[row] for row in part.tolist())
        assert len(part) * width <= max_tokens or len(part) == 1
