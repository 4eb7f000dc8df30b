import math
import pickle
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.core.token_selection import (
    All,
    BottomEntropy,
    Random,
    TopEntropy,
    select_tokens,
)
from prefix_rft_rllib.core.tokens import TRAINABLE_REGIONS
from tests.token_batches import batches, make_columns, run_learners, widen

PERCENTS = st.integers(0, 100)
KINDS = (TopEntropy, BottomEntropy, Random)


def test_the_uncertain_fifth_is_kept_by_hand():
    # Six prefix tokens; ceil(0.2 * 6) = 2: entropies 2.0 (row 1) and 1.5 (row 0, later position).
    # The 9.0 of a response token and of a prompt token do not compete.
    columns = make_columns(
        ["xpppr", "xpppr"],
        [1.0, -1.0],
        [[9.0, 0.1, 0.2, 1.5, 9.0], [9.0, 0.3, 2.0, 0.4, 9.0]],
    )
    selection = select_tokens(TopEntropy(0.2), columns, columns.is_prefix)
    assert selection.is_kept.int().tolist() == [[0, 0, 0, 1, 0], [0, 0, 1, 0, 0]]
    assert (selection.num_region_tokens, selection.num_kept_tokens) == (6, 2)
    bottom = select_tokens(BottomEntropy(0.2), columns, columns.is_prefix)
    assert bottom.is_kept.int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]


def test_ties_go_to_the_earlier_row_index_then_to_the_earlier_position():
    columns = make_columns(["xppr", "xppr"], [1.0, 1.0], [[1.0] * 4] * 2)
    for keep in (TopEntropy(0.75), BottomEntropy(0.75)):
        selection = select_tokens(keep, columns, columns.is_prefix)
        assert selection.is_kept.int().tolist() == [[0, 1, 1, 0], [0, 1, 0, 0]]
        # The same rows in another order: the row index decides, not the place in the tensor.
        swapped = columns.rows(torch.tensor([1, 0]))
        selection = select_tokens(keep, swapped, swapped.is_prefix)
        assert selection.is_kept.int().tolist() == [[0, 1, 0, 0], [0, 1, 1, 0]]


def slow_selection(ranks, fraction, columns, region):
    """Places to keep, by sorting Python tuples."""
    candidates = []
    for row in range(columns.num_rows):
        for position, code in enumerate(columns.region[row].tolist()):
            if code == TRAINABLE_REGIONS[region]:
                index = columns.row_index[row].item()
                candidates.append((-ranks[row][position], index, position))
    candidates.sort()
    count = math.ceil(fraction * len(candidates))
    return {(index, position) for _, index, position in candidates[:count]}


@settings(max_examples=60)
@given(batches(), PERCENTS, st.sampled_from(sorted(TRAINABLE_REGIONS)), st.sampled_from(KINDS))
def test_selections_agree_with_sorted_tuples(columns, percent, region, kind):
    keep = kind(percent / 100)
    ranks = {
        TopEntropy: lambda: columns.entropy,
        BottomEntropy: lambda: -columns.entropy,
        Random: lambda: Random(1).priority(columns),
    }[kind]().tolist()
    selection = select_tokens(keep, columns, columns.in_region(region))
    kept = {
        (columns.row_index[row].item(), position)
        for row, position in selection.is_kept.nonzero().tolist()
    }
    assert kept == slow_selection(ranks, Fraction(percent, 100), columns, region)


@settings(max_examples=60)
@given(batches(), PERCENTS, st.sampled_from(sorted(TRAINABLE_REGIONS)))
def test_top_bottom_and_random_keep_the_same_number_inside_the_region(columns, percent, region):
    is_region = columns.in_region(region)
    expected = math.ceil(Fraction(percent, 100) * int(is_region.sum()))
    for kind in KINDS:
        selection = select_tokens(kind(percent / 100), columns, is_region)
        assert int(selection.is_kept.sum()) == selection.num_kept_tokens == expected
        assert selection.num_region_tokens == int(is_region.sum())
        assert not (selection.is_kept & ~is_region).any()


@given(batches())
def test_a_fraction_of_one_keeps_all_and_of_zero_none(columns):
    is_region = columns.is_prefix
    everything = select_tokens(All(), columns, is_region)
    for kind in KINDS:
        whole = select_tokens(kind(1.0), columns, is_region)
        assert torch.equal(whole.is_kept, everything.is_kept)
        assert whole[1:] == everything[1:]
        assert not select_tokens(kind(0.0), columns, is_region).is_kept.any()


@settings(max_examples=60)
@given(batches(), PERCENTS, st.sampled_from(KINDS), st.randoms(use_true_random=False))
def test_row_order_and_padding_do_not_change_a_selection(columns, percent, kind, random):
    keep = kind(percent / 100)
    plain = select_tokens(keep, columns, columns.is_prefix).is_kept
    order = list(range(columns.num_rows))
    random.shuffle(order)
    moved = widen(columns.rows(torch.tensor(order)), 3)
    selection = select_tokens(keep, moved, moved.is_prefix)
    assert torch.equal(selection.is_kept[:, :-3], plain[order])
    assert not selection.is_kept[:, -3:].any()


@settings(max_examples=25, deadline=None)
@given(batches(), PERCENTS, st.sampled_from(KINDS), st.integers(2, 3), st.data())
def test_learners_take_the_decision_of_one_learner(columns, percent, kind, num_learners, data):
    keep = kind(percent / 100)
    alone = select_tokens(keep, columns, columns.is_prefix)
    owner = torch.tensor(
        data.draw(
            st.lists(
                st.integers(0, num_learners - 1),
                min_size=columns.num_rows,
                max_size=columns.num_rows,
            )
        )
    )
    # Some learners may have no rows at all; one of them pads wider.
    shares = [columns.rows(owner == learner) for learner in range(num_learners)]
    shares[-1] = widen(shares[-1], 2)
    results = run_learners(
        shares, lambda share, collectives: select_tokens(keep, share, share.is_prefix, collectives)
    )
    width = columns.input_ids.shape[1]
    for learner, result in enumerate(results):
        assert torch.equal(result.is_kept[:, :width], alone.is_kept[owner == learner])
        assert result[1:] == alone[1:]


def test_random_selections_change_with_the_rows_keys():
    pictures = ["x" + "p" * 50 + "r"] * 4
    first = make_columns(pictures, [1.0] * 4, seed=0)
    second = make_columns(pictures, [1.0] * 4, seed=1)
    kept = [select_tokens(Random(0.2), c, c.is_prefix).is_kept for c in (first, second)]
    assert not torch.equal(*kept)
    # Not always the same positions in all rows either.
    assert len({tuple(row.tolist()) for row in kept[0]}) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_percentage_is_refused(kind):
    with pytest.raises(ValueError, match=r"`keep_fraction` must be in \[0, 1\], got 20\..*0\.2"):
        kind(20)


@pytest.mark.parametrize("kind", KINDS)
def test_a_selection_is_a_value_with_its_own_kind(kind):
    keep = kind(0.2)
    assert repr(keep) == f"{kind.__name__}(keep_fraction=0.2)"
    assert [other(0.2) == keep for other in KINDS] == [other is kind for other in KINDS]
    assert keep != kind(0.3)
    assert pickle.loads(pickle.dumps(keep)) == keep
    assert len({keep, kind(keep_fraction=0.2)}) == 1


def test_selection_by_entropy_needs_the_old_policy_pass():
    columns = make_columns(["xpr"], [1.0])
    early = type(columns)(**{k: v for k, v in columns._columns().items() if k != "entropy"})
    with pytest.raises(ValueError, match="old-policy pass"):
        select_tokens(TopEntropy(0.2), early, early.is_prefix)
    assert select_tokens(Random(1.0), early, early.is_prefix).num_kept_tokens == 1


def test_an_entropy_that_is_no_number_is_refused():
    columns = make_columns(["xpr"], [1.0], [[0.0, float("nan"), 0.0]])
    with pytest.raises(ValueError, match="NaN"):
        select_tokens(TopEntropy(0.2), columns, columns.is_prefix)
