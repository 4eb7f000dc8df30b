"""pass@k, avg@k, maj@k, intervals over problems: by hand, by counting, by simulation."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.evaluation.statistics import (
    avg_at_k,
    maj_at_k,
    mean_with_interval,
    pass_at_k,
    spread_over_seeds,
)


def rational_pass_at_k(n: int, c: int, k: int) -> Fraction:
    """1 minus the chance to draw k wrong ones, attempt after attempt."""
    all_wrong = Fraction(1)
    for drawn in range(k):
        all_wrong *= Fraction(max(0, n - c - drawn), n - drawn)
    return 1 - all_wrong


def test_pass_at_k_by_hand():
    # 4 attempts, pairs: 6. None right: 0. One right: 3 of 6 pairs hold it. Two right: all but one
    # pair. Three or four right: every pair.
    expected = [0.0, 3 / 6, 5 / 6, 1.0, 1.0]
    assert pass_at_k([0, 1, 2, 3, 4], 4, 2).tolist() == expected
    # k = 1 is the share, k = n asks for any.
    assert pass_at_k([1, 3], [4, 6], 1).tolist() == [1 / 4, 3 / 6]
    assert pass_at_k([0, 1], [5, 5], 5).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("n", range(1, 9))
def test_pass_at_k_is_the_share_of_all_sets_of_attempts_with_a_right_one(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        attempts = [True] * c + [False] * (n - c)
        sets = [any(chosen) for chosen in itertools.combinations(attempts, k)]
        assert pass_at_k([c], n, k)[0] == float(Fraction(sum(sets), len(sets)))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_pass_at_k_equals_rational_arithmetic_to_the_last_bit(data):
    n = data.draw(st.integers(1, 5_000), "n")
    c = data.draw(st.integers(0, n), "c")
    k = data.draw(st.integers(1, min(n, 2_048)), "k")
    assert pass_at_k([c], n, k)[0] == float(rational_pass_at_k(n, c, k))


def test_pass_at_2048_keeps_the_digits_that_sums_of_logarithms_lose():
    # One right among 10**9: 2048 of them hold it with probability 2048 / 10**9, exactly.
    assert pass_at_k([1], 10**9, 2_048)[0] == 2_048e-9
    values = pass_at_k(range(4_097), 4_096, 2_048)
    for c in (0, 1, 2, 3, 10, 100, 1_000, 2_047, 2_048, 2_049, 4_096):
        assert values[c] == float(rational_pass_at_k(4_096, c, 2_048))
    assert values[0] == 0.0
    assert values[-1] == 1.0
    assert (np.diff(values) >= 0).all()


def test_pass_at_k_of_a_large_sample_estimates_that_of_small_ones_without_bias():
    draw = np.random.default_rng(0).binomial
    estimates = pass_at_k(draw(16, 0.1, size=40_000), 16, 4)
    # Truth 1 - 0.9**4; the standard error is at most 0.5 / 200.
    assert estimates.mean() == pytest.approx(1 - 0.9**4, abs=4 * estimates.std() / 200)


def test_avg_at_k_is_the_mean_of_each_problem():
    assert avg_at_k([[1, 0, 0, 1], [0.5, 0.5, 0.25, 0.75]]).tolist() == [0.5, 0.5]
    assert avg_at_k([[True], [False]]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("answers", "is_correct", "value"),
    [
        (["7", "7", "8"], [1, 1, 0], 1.0),
        (["8", "7", "8"], [0, 1, 0], 0.0),
        (["7", "8", "9", "9"], [1, 0, 0, 0], 0.0),
        (["7", "8", "9"], [1, 0, 0], 1 / 3),  # each has one vote, one of three is right
        (["7", "7", "8", "8", "9"], [1, 1, 0, 0, 0], 1 / 2),
        ([None, None, None, "7"], [0, 0, 0, 1], 1.0),  # what has no answer does not vote
        ([None, None, None, None], [0, 0, 0, 0], 0.0),
        (["7", "7", "7", "8"], [1, 1, 0, 0], 2 / 3),  # one of three equal answers timed out
    ],
)
def test_maj_at_k_by_hand(answers, is_correct, value):
    assert maj_at_k([answers], [is_correct], len(answers)).tolist() == [value]
    turned = slice(None, None, -1)
    assert maj_at_k([answers[turned]], [is_correct[turned]], len(answers)).tolist() == [value]


def test_maj_at_k_of_more_attempts_is_the_mean_over_blocks():
    answers, is_correct = [["7", "7", "8", "8", "8", "7"]], [[1, 1, 0, 0, 0, 1]]
    assert maj_at_k(answers, is_correct, 3).tolist() == [0.5]  # 7 wins the first, 8 the second
    assert maj_at_k(answers, is_correct, 2).tolist() == [pytest.approx((1 + 0 + 0.5) / 3)]
    assert maj_at_k(answers, is_correct, 1).tolist() == avg_at_k(is_correct).tolist()
    assert maj_at_k(answers, is_correct, 6).tolist() == [0.5]


def coverage(draw, truth: float, num_sets: int = 300) -> float:
    """Share of simulated evaluations whose interval holds the truth."""
    held = 0
    for seed in range(num_sets):
        estimate = mean_with_interval(draw(np.random.default_rng(seed)), num_resamples=499)
        held += estimate.low <= truth <= estimate.high
    return held / num_sets


def attempts(rng, problems: int, mean: float) -> np.ndarray:
    """Four attempts at each problem; most problems are nearly always or nearly never solved."""
    chance = rng.beta(0.3 * mean, 0.3 * (1 - mean), size=(problems, 1))
    return rng.random((problems, 4)) < chance


@pytest.mark.parametrize("mean", [0.02, 0.2, 0.5])
@pytest.mark.parametrize("problems", [40, 300])
def test_intervals_hold_the_truth_in_95_of_100_evaluations(mean, problems):
    greedy = coverage(lambda rng: rng.random(problems) < mean, mean)
    averages = coverage(lambda rng: avg_at_k(attempts(rng, problems, mean)), mean)
    # 300 simulations: standard error 0.013. Few problems and rare events are held more often.
    assert 0.91 <= greedy <= 1.0
    assert 0.91 <= averages <= 1.0
    if problems * mean >= 60:
        assert max(greedy, averages) <= 0.99


def test_attempts_taken_for_independent_problems_would_give_intervals_too_narrow():
    assert coverage(lambda rng: attempts(rng, 300, 0.5).ravel(), 0.5, num_sets=100) < 0.85


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_equal_values_do_not_give_an_interval_of_width_zero(value):
    estimate = mean_with_interval([value] * 20)
    # Clopper and Pearson for 0 of 20: [0, 1 - 0.025 ** (1 / 20)] = [0, 0.1684].
    assert estimate.mean == pytest.approx(value)
    assert estimate.low == pytest.approx(value - 0.1684 * value, abs=1e-4)
    assert estimate.high == pytest.approx(value + 0.1684 * (1 - value), abs=1e-4)
    assert mean_with_interval([40.0] * 20, bounds=(0, 40)).high == 40.0
    assert mean_with_interval([value]).high - mean_with_interval([value]).low > 0.9


def test_an_interval_is_the_same_in_every_run_and_order():
    values = np.random.default_rng(1).choice([0.0, 0.25, 0.5, 1.0], size=200)
    estimate = mean_with_interval(values)
    assert estimate == mean_with_interval(values[::-1].tolist())
    assert estimate.low < estimate.mean < estimate.high
    assert mean_with_interval(values, seed=1) != estimate
    assert mean_with_interval(values, seed=1).low == pytest.approx(estimate.low, abs=0.01)
    lengths = mean_with_interval(1000 * values, bounds=(0, 1000))
    assert (lengths.low, lengths.high) == pytest.approx((1000 * estimate.low, 1000 * estimate.high))


def test_spread_over_seeds_by_hand():
    spread = spread_over_seeds([0.2, 0.4, 0.6])
    assert (spread.mean, spread.std, spread.num_seeds) == pytest.approx((0.4, 0.2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: pass_at_k([1], 4, 5),
            r"`k` must be .* in \[1, 4\], got 5\. At most the 4 attempts of",
        ),
        (lambda: pass_at_k([1, 1], [8, 4], 5), "the 4 attempts of problem 1"),
        (lambda: pass_at_k([1], 4, 0), r"`k` must be a whole number in \[1, 4\], got 0"),
        (lambda: pass_at_k([], 4, 1), "`num_correct` must have one dimension and at least one"),
        (lambda: pass_at_k([5], 4, 1), r"`num_correct` of problem 0 is 5, must be in \[0, 4\]"),
        (lambda: pass_at_k([1, -1], 4, 1), "`num_correct` of problem 1 is -1"),
        (lambda: pass_at_k([0.5], 4, 1), "`num_correct` must hold whole numbers, but entry 0"),
        (lambda: pass_at_k([float("nan")], 4, 1), "`num_correct` must hold finite numbers"),
        (lambda: pass_at_k(["1"], 4, 1), "`num_correct` must hold plain numbers"),
        (lambda: pass_at_k([1, 1], [4, 4, 4], 1), "`num_samples` has 3 entries, `num_correct` 2"),
        (lambda: avg_at_k([]), "`scores` must hold at least one problem and one attempt"),
        (lambda: avg_at_k([[1], []]), "got 2 problems, number 1 without attempts"),
        (lambda: avg_at_k([[1, 0], [1]]), "`scores` has 1 attempts at problem 1, but 2 at"),
        (lambda: avg_at_k([[1, float("inf")]]), "`scores` must hold finite numbers, but entry 1"),
        (lambda: avg_at_k([[1, None]]), "`scores` must hold plain numbers"),
        (lambda: maj_at_k([["a"] * 4], [[1] * 4], 3), r"must divide the 4 .* one of \[1, 2, 4\]"),
        (
            lambda: maj_at_k([["a"] * 4], [[1] * 4], 5),
            r"`k` must be a whole number in \[1, 4\], got 5",
        ),
        (lambda: maj_at_k([["a"] * 4], [[1] * 3], 2), "`is_correct` must have the shape"),
        (lambda: maj_at_k([["a"]], [[0.5]], 1), "`is_correct` must hold 0 and 1 only"),
        (lambda: mean_with_interval([]), "`values` must have one dimension and at least one"),
        (lambda: mean_with_interval([[0.5]]), r"got shape \(1, 1\)"),
        (lambda: mean_with_interval([0.5, 2]), r"`values` must lie in `bounds` \[0, 1\], but ent"),
        (lambda: mean_with_interval([0.5], bounds=(1, 0)), "the smaller first, got"),
        (
            lambda: mean_with_interval([0.5], num_resamples=9),
            "must be a whole number of at least 100, got 9",
        ),
        (lambda: spread_over_seeds([0.5]), "needs two or more"),
    ],
)
def test_a_wrong_argument_is_a_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
