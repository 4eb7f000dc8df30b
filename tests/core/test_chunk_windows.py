"""Prefixes of whole solution steps: where chunks end, and how many are given."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.core.prefix_sampling import GroupSpec, WholeGroup, limited_length, plan_group
from prefix_rft_rllib.core.prefix_schedules import BinomialChunks, ChunkWindow, PrefixDraw, Schedule

ALL_BUT_NEVER = 1 - 2**-53
"""The largest uniform draw."""


def chunk_ends(step_ends, max_chunks):
    """The numbers of tokens that a demonstration's prefix can have, over a grid of draws."""
    window = ChunkWindow(0.5, max_chunks)
    draws = [(index + 0.5) / 1000 for index in range(1000)]
    return sorted({window.prefix(draw, step_ends[-1], lambda: step_ends)[1] for draw in draws})


def test_steps_are_merged_into_chunks_by_hand():
    # Seven steps in five chunks: chunk j ends with step floor(7 j / 5) = 1, 2, 4, 5, 7.
    assert chunk_ends((10, 20, 30, 40, 50, 60, 70), 5) == [0, 10, 20, 40, 50, 70]
    # Ten in five: 2, 4, 6, 8, 10. Steps of different lengths: their ends count, not their number.
    assert chunk_ends((1, 5, 6, 7, 20, 21, 30, 31, 32, 40), 5) == [0, 5, 7, 21, 31, 40]
    # Three steps are three chunks; one step is one.
    assert chunk_ends((3, 4, 9), 5) == [0, 3, 4, 9]
    assert chunk_ends((9,), 5) == [0, 9]
    assert chunk_ends((3, 4, 9), 1) == [0, 9]


def test_the_share_is_that_of_the_tokens():
    # p = 1/2, two chunks: 0, 1, 2 with 1/4, 1/2, 1/4.
    window = ChunkWindow(0.5, 2)
    assert window.prefix(0.2, 8, lambda: (2, 8)) == PrefixDraw(0.0, 0)
    assert window.prefix(0.25, 8, lambda: (2, 8)) == PrefixDraw(0.25, 2)
    assert window.prefix(0.74, 8, lambda: (2, 8)) == PrefixDraw(0.25, 2)
    assert window.prefix(0.75, 8, lambda: (2, 8)) == PrefixDraw(1.0, 8)


@pytest.mark.parametrize("probability", [0.0, 0.05, 0.3, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("num_steps", [1, 3, 5, 8])
def test_the_number_of_chunks_is_binomial(probability, num_steps):
    ends = tuple(range(2, 2 * num_steps + 2, 2))
    num_chunks = min(5, num_steps)
    window = ChunkWindow(probability, 5)
    num_draws = 20_000
    counts: dict[int, int] = {}
    for index in range(num_draws):
        _, tokens = window.prefix((index + 0.5) / num_draws, ends[-1], lambda: ends)
        counts[tokens] = counts.get(tokens, 0) + 1
    # Draws on a grid: a probability is met up to one draw at each of its two borders.
    p = Fraction(str(probability))
    for k in range(num_chunks + 1):
        expected = math.comb(num_chunks, k) * p**k * (1 - p) ** (num_chunks - k)
        end = ends[k * num_steps // num_chunks - 1] if k else 0
        assert abs(counts.pop(end, 0) - float(expected) * num_draws) <= 1.001
    assert not counts


def test_the_extreme_draws_give_no_more_chunks_than_there_are():
    # The cumulative probabilities of floating-point numbers may miss 1.
    for num_chunks in range(1, 11):
        for probability in (0.0, 0.1, 1 / 3, 0.7, 0.9, 1.0):
            window = ChunkWindow(probability, num_chunks)
            ends = tuple(range(1, num_chunks + 1))
            given = [
                window.prefix(draw, num_chunks, lambda ends=ends: ends).num_tokens
                for draw in (0.0, ALL_BUT_NEVER)
            ]
            assert given[0] == (num_chunks if probability == 1 else 0)
            assert given[1] == (0 if probability == 0 else num_chunks)


STEPS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@settings(max_examples=200)
@given(
    STEPS,
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1),
    st.integers(1, 6),
    st.integers(1, 40),
)
def test_a_prefix_is_whole_steps_and_leaves_a_token_to_sample(
    lengths, draw, probability, max_chunks, budget
):
    ends = tuple(sum(lengths[: number + 1]) for number in range(len(lengths)))
    window = ChunkWindow(probability, max_chunks)
    fraction, tokens = window.prefix(draw, ends[-1], lambda: ends)
    assert tokens in (0, *ends)
    assert fraction == tokens / ends[-1]
    assert window.low <= fraction <= window.high
    if fraction > 0:
        length = limited_length(tokens, ends[-1], budget, None)
        assert 0 <= length <= min(tokens, ends[-1] - 1, budget - 1)


@settings(max_examples=100)
@given(STEPS, st.floats(0, 1, exclude_max=True), st.integers(1, 6))
def test_more_of_a_demonstration_is_given_the_larger_the_draw_and_the_probability(
    lengths, draw, max_chunks
):
    ends = tuple(sum(lengths[: number + 1]) for number in range(len(lengths)))

    def tokens(a_draw, probability):
        return ChunkWindow(probability, max_chunks).prefix(a_draw, ends[-1], lambda: ends)[1]

    assert tokens(draw / 2, 0.5) <= tokens(draw, 0.5)
    assert tokens(draw, 0.3) <= tokens(draw, 0.6)


def test_ufts_schedule_by_hand():
    # p = 0.05 + 0.45 (1 + cos(pi t / 300)): 0.95 at 0, 0.725 at 100 (cos = 1/2), 0.5 at 150.
    schedule = BinomialChunks()
    expected = {0: 0.95, 100: 0.725, 150: 0.5, 200: 0.275}
    for iteration, probability in expected.items():
        window = schedule.window(iteration, {}, None)
        assert window.probability == pytest.approx(probability, abs=1e-12)
        assert window.max_chunks == 5
    assert 0.05 < schedule.window(299, {}, None).probability < 0.0501
    # From 60% of the paper's 500 iterations on there are no hints, and no steps are asked for.
    for iteration in (300, 301, 10_000):
        window = schedule.window(iteration, {}, None)
        assert (window.low, window.high) == (0.0, 0.0)
        assert window.prefix(ALL_BUT_NEVER, 9, None) == PrefixDraw(0.0, 0)


def make_group(**changes):
    settings = {
        "seed": 3,
        "iteration": 150,
        "group_id": 0,
        "problem_id": "train:12",
        "num_rollouts": 4,
        "demonstration_lengths": (12,),
        "answer_cut": lambda index: None,
        "max_response_tokens": 100,
        "step_ends": lambda index: (3, 6, 9, 12),
    }
    return GroupSpec(**{**settings, **changes})


def test_a_group_shares_its_whole_steps():
    sampler = WholeGroup(BinomialChunks())
    seen = set()
    for number in range(60):
        plans = plan_group(sampler, make_group(problem_id=f"p{number}"))
        (length,) = {plan.num_prefix_tokens for plan in plans}
        (drawn,) = {plan.drawn_prefix_tokens for plan in plans}
        # The whole demonstration leaves one token, its end, to sample.
        assert length == min(drawn, 11)
        assert all(not plan.was_cut for plan in plans)
        seen.add(drawn)
    assert seen == {0, 3, 6, 9, 12}


def test_steps_are_asked_for_the_drawn_demonstration_only():
    asked = []

    def step_ends(index):
        asked.append(index)
        return (5, 20 * (index + 1))

    group = make_group(demonstration_lengths=(20, 40), step_ends=step_ends, num_rollouts=1)
    (plan,) = plan_group(WholeGroup(BinomialChunks(start=1.0, end=1.0)), group)
    assert asked == [plan.demonstration_index]
    assert plan.drawn_prefix_tokens == 20 * (plan.demonstration_index + 1)
    # Without a splitter a demonstration is one step.
    drawn = {
        plan_group(
            WholeGroup(BinomialChunks()), make_group(step_ends=None, problem_id=f"p{number}")
        )[0].drawn_prefix_tokens
        for number in range(40)
    }
    assert drawn == {0, 12}


def test_an_answer_cut_may_end_a_prefix_inside_a_step():
    group = make_group(answer_cut=lambda index: 7)
    plans = plan_group(WholeGroup(BinomialChunks(start=1.0, end=1.0)), group)
    assert {(plan.drawn_prefix_tokens, plan.num_prefix_tokens) for plan in plans} == {(12, 7)}
    assert all(plan.was_cut for plan in plans)


def test_the_schedule_may_count_from_another_iteration_than_the_draws():
    # In the last hint iteration of a stage that began at 1000.
    sampler = WholeGroup(BinomialChunks(start=1.0, end=1.0))
    late = plan_group(sampler, make_group(iteration=1299, schedule_iteration=299))
    assert all(plan.has_prefix for plan in late)
    after = plan_group(sampler, make_group(iteration=1299))
    assert not any(plan.has_prefix for plan in after)


def test_schedules_of_time_learn_nothing():
    schedule: Schedule = BinomialChunks()
    assert schedule.initial_state() == {}
    assert schedule.next_state({}, None) == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinomialChunks(start=95), r"`start` must be in \[0, 1\], got 95"),
        (lambda: BinomialChunks(end=-0.1), "`end` must be in"),
        (lambda: BinomialChunks(num_iterations=0), "`num_iterations` must be a whole number"),
        (lambda: BinomialChunks(max_chunks=0), "`max_chunks` must be a whole number of at least 1"),
    ],
)
def test_chunks_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
