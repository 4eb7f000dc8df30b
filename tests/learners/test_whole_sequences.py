"""Dealing rows to learners."""

import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.row_data import WholeSequences, num_tokens_of
from tests.learners.torch.learners import make_rows, rows_of_groups


def index_of(row):
    return row.custom_data[row_data.ROW_INDEX]


def loads_of(shards, minibatch):
    return [
        [num_tokens_of(row) for row in shard if row.custom_data[row_data.MINIBATCH] == minibatch]
        for shard in shards
    ]


def shard(rows, num_learners):
    parts = WholeSequences(episodes=rows).shard(num_learners, len_lookback_buffer=1, num_epochs=2)
    assert [settings for _, settings in parts] == [{}] * num_learners
    return [part.episodes for part, _ in parts]


def test_rows_are_dealt_by_hand():
    # Tokens 6, 3, 5, 4 and 2, 9: the longest first, each to the lightest learner.
    # Minibatch 0: 6 to A, 5 to B, 4 to B, 3 to A. Minibatch 1: 9 to A, 2 to B.
    rows = make_rows(
        ["xxprrr", "xrr", "xxrrr", "xxpr", "xr", "xxpppprrr"],
        [0.0] * 6,
        [0, 0, 0, 0, 1, 1],
    )
    shards = shard(rows, 2)
    assert [[index_of(row) for row in part] for part in shards] == [[0, 1, 5], [2, 3, 4]]


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.lists(st.integers(1, 12), min_size=4, max_size=9), min_size=1, max_size=3),
    st.randoms(use_true_random=False),
)
def test_every_learner_gets_whole_rows_of_every_minibatch_balanced_by_tokens(
    num_learners, minibatches, random
):
    lengths = [(n, length) for n, part in enumerate(minibatches) for length in part]
    rows = make_rows(
        ["x" + "r" * length for _, length in lengths],
        [0.0] * len(lengths),
        [number for number, _ in lengths],
    )
    random.shuffle(rows)
    shards = shard(rows, num_learners)
    dealt = Counter(id(row) for part in shards for row in part)
    assert dealt == Counter(map(id, rows))
    for part in shards:
        assert [index_of(row) for row in part] == sorted(index_of(row) for row in part)
    for number in range(len(minibatches)):
        loads = loads_of(shards, number)
        assert all(loads)
        # Without its last row no learner has more than the lightest one.
        lightest = min(map(sum, loads))
        assert all(sum(load) - min(load) <= lightest for load in loads)
    # A function of the rows, not of their order.
    random.shuffle(rows)
    again = [[index_of(row) for row in part] for part in shard(rows, num_learners)]
    assert again == [[index_of(row) for row in part] for part in shards]


def deal_groups(rows, num_learners):
    parts = WholeSequences(episodes=rows, keeps_groups=True).shard(num_learners)
    assert all(part.keeps_groups for part, _ in parts)
    return [[index_of(row) for row in part.episodes] for part, _ in parts]


def test_rows_of_one_prompt_stay_together_where_that_is_as_fast():
    # Computed tokens 4 + 4 + 3 = 11, 2 + 1 + 1 = 4 and 2 + 3 = 5.
    rows = rows_of_groups([["xxxxrrrr", "xxxxrrr"], ["xxr", "xxr"], ["xxrrr"]])
    assert deal_groups(rows, 2) == [[0, 1], [2, 3, 4]]
    # In halves 8, 7, 5, 3 and 3: of three learners the heaviest has 7 + 3, fewer than 11.
    assert deal_groups(rows, 3) == [[0], [1, 3], [2, 4]]
    # A single group is dealt row by row where it must.
    assert deal_groups(rows_of_groups([["xr", "xrr"]]), 2) == [[1], [0]]


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(st.integers(1, 9), st.lists(st.integers(1, 12), min_size=1, max_size=8)),
        min_size=4,
        max_size=6,
    ),
)
def test_no_learner_computes_more_than_with_rows_dealt_one_by_one(num_learners, groups):
    rows = rows_of_groups(
        [["x" * num_prompt + "r" * n for n in lengths] for num_prompt, lengths in groups]
    )

    def computed(shards):
        return max(
            sum(len(row_data.response_ids_of(row)) for row in part)
            + sum(map(len, {tuple(row_data.prompt_ids_of(row)) for row in part}))
            for part in shards
        )

    dealt = deal_groups(rows, num_learners)
    assert sorted(itertools.chain(*dealt)) == list(range(len(rows)))
    assert all(dealt)
    by_index = [[rows[index] for index in part] for part in dealt]
    alone = shard(rows, num_learners)
    assert computed(by_index) <= max(sum(map(num_tokens_of, part)) for part in alone)
