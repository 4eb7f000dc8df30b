"""Two models on the same problems: p-values by hand, by counting, by simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from prefix_rft_rllib.evaluation.paired_tests import compare_averages, compare_greedy


def by_id(scores) -> dict[str, float]:
    return {f"p{number}": score for number, score in enumerate(scores)}


def test_mcnemar_by_hand():
    # 5 problems that only ours solves, 1 that only theirs: P(at least 5 of 6 heads) is
    # (6 + 1) / 64, twice for either side.
    ours = by_id([1, 1, 1, 1, 1, 0, 1, 1, 0, 0])
    theirs = by_id([0, 0, 0, 0, 0, 1, 1, 1, 0, 0])
    test = compare_greedy(ours, theirs)
    assert test.p_value == pytest.approx(14 / 64, rel=1e-12)
    assert (test.num_better, test.num_worse) == (5, 1)
    assert test.difference.mean == pytest.approx(0.4)
    assert test.difference.low < 0.4 < test.difference.high
    assert compare_greedy(theirs, ours).p_value == pytest.approx(test.p_value, rel=1e-12)


def test_the_order_of_problems_changes_nothing_and_pairs_stay_pairs():
    ours, theirs = by_id([1, 0, 1, 1, 0, 1, 1, 1]), by_id([0, 0, 1, 0, 1, 0, 0, 0])
    mixed = {f"p{number}": theirs[f"p{number}"] for number in (3, 0, 7, 4, 1, 6, 2, 5)}
    turned = dict(reversed(ours.items()))
    assert compare_greedy(turned, mixed) == compare_greedy(ours, theirs)
    assert compare_averages(turned, mixed) == compare_averages(ours, theirs)


def test_signs_are_flipped_by_all_choices_where_these_are_few():
    ours, theirs = [0.75, 0.5, 1.0, 0.25, 0.3], [0.25, 0.25, 0.0, 0.5, 0.3]
    differences = np.subtract(ours, theirs)
    sums = [signs @ differences for signs in map(np.array, itertools.product((1, -1), repeat=5))]
    at_least = np.mean([abs(s) >= abs(differences.sum()) - 1e-9 for s in sums])
    test = compare_averages(by_id(ours), by_id(theirs))
    assert test.p_value == pytest.approx(at_least, rel=1e-12)
    assert (test.num_better, test.num_worse) == (3, 1)
    assert test.difference.mean == pytest.approx(differences.mean())


def test_thirds_that_cancel_are_no_difference():
    # 2/3 - 1/3 + 0 - 1/3 is 0 up to the last digit: no choice of signs lies nearer to 0.
    test = compare_averages(by_id([2 / 3, 0.0, 1 / 3]), by_id([0.0, 1 / 3, 2 / 3]))
    assert test.p_value == 1.0
    almost = by_id([0.1 + 0.2, 0.5])
    test = compare_averages(almost, by_id([0.3, 0.5]))
    assert (test.p_value, test.num_better, test.num_worse) == (1.0, 0, 0)


def test_of_two_equal_models_nothing_is_said_but_an_interval_is():
    scores = by_id([0.0, 1.0, 1.0] * 10)
    for test in (compare_greedy(scores, scores), compare_averages(scores, scores)):
        assert test.p_value == 1.0
        assert (test.num_better, test.num_worse) == (0, 0)
        # 1 - 0.025 ** (1 / 30) of the problems may be of another kind.
        assert (test.difference.low, test.difference.high) == pytest.approx((-0.1157, 0.1157), 1e-3)


@pytest.mark.parametrize("num_changed", range(1, 7))
def test_differences_of_one_sign_have_the_smallest_p_value_there_is(num_changed):
    ours = by_id([1.0] * num_changed + [0.5] * 4)
    theirs = by_id([0.5] * (num_changed + 4))
    assert compare_averages(ours, theirs).p_value == pytest.approx(2 / 2**num_changed, rel=1e-12)
    single = by_id([1] * num_changed), by_id([0] * num_changed)
    assert compare_greedy(*single).p_value == pytest.approx(2 / 2**num_changed, rel=1e-12)


def test_many_differences_have_a_p_value_above_zero():
    test = compare_averages(by_id([0.75] * 300), by_id([0.5] * 300), num_resamples=999)
    assert test.p_value == pytest.approx(2 / 1000, rel=1e-12)


def test_rewards_of_another_scale_give_the_same_p_value():
    rng = np.random.default_rng(3)
    ours, theirs = rng.integers(0, 5, size=(2, 40)) / 4
    shares = compare_averages(by_id(ours), by_id(theirs))
    scaled = compare_averages(by_id(100 * ours - 50), by_id(100 * theirs - 50), bounds=(-50, 50))
    assert scaled.p_value == shares.p_value
    assert scaled.difference.low == pytest.approx(100 * shares.difference.low)


def greedy_p_value(ours, theirs) -> float:
    return compare_greedy(by_id(ours), by_id(theirs)).p_value


def averages_p_value(ours, theirs) -> float:
    return compare_averages(by_id(ours), by_id(theirs), num_resamples=499).p_value


def p_values(p_value, num_attempts: int, gain: float, num_sets: int = 250) -> np.ndarray:
    """Two models on the same 80 problems; ours solves each with a probability higher by `gain`."""
    found = []
    for seed in range(num_sets):
        rng = np.random.default_rng(seed)
        chance = rng.beta(0.4, 0.4, size=80)
        ours = rng.binomial(num_attempts, np.minimum(1, chance + gain)) / num_attempts
        theirs = rng.binomial(num_attempts, chance) / num_attempts
        found.append(p_value(ours, theirs))
    return np.array(found)


@pytest.mark.parametrize(("p_value", "num_attempts"), [(greedy_p_value, 1), (averages_p_value, 4)])
def test_equal_models_differ_significantly_in_one_of_twenty_comparisons_at_most(
    p_value, num_attempts
):
    equal = p_values(p_value, num_attempts, gain=0.0)
    # 250 simulations: standard errors 0.014 and 0.032. McNemar's test is discrete and stays below.
    assert (equal < 0.05).mean() <= 0.05 + 3 * 0.014
    assert (equal < 0.5).mean() <= 0.5 + 3 * 0.032
    if num_attempts > 1:
        assert stats.kstest(equal, "uniform").pvalue > 0.001
    # A test that never rejects would pass the lines above.
    assert (p_values(p_value, num_attempts, gain=0.2, num_sets=60) < 0.05).mean() >= 0.6


def test_the_same_numbers_unpaired_say_less():
    # Negative control: pairs that belong together show a difference, shuffled ones do not.
    rng = np.random.default_rng(0)
    theirs = rng.beta(0.4, 0.4, size=200) * 0.9
    ours = theirs + 0.05
    assert compare_averages(by_id(ours), by_id(theirs)).p_value <= 2e-4
    assert compare_averages(by_id(rng.permutation(ours)), by_id(theirs)).p_value > 0.05


@pytest.mark.parametrize("compare", [compare_greedy, compare_averages])
@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ({"a": 1, "b": 0}, {"a": 1}, r"1 problems are in `ours` and not in `theirs`.*\['b'\]"),
        ({"a": 1}, {"a": 1, "c": 0, "d": 0}, r"2 problems are in `theirs` and .*\['c', 'd'\]"),
        ({}, {}, "`ours` must have one dimension and at least one entry"),
        ({"a": float("nan")}, {"a": 1}, "`ours` must hold finite numbers"),
        ({"a": 1}, {"a": None}, "`theirs` must hold plain numbers"),
        ({"a": 1}, {"a": 3}, "`theirs` must"),
    ],
)
def test_a_comparison_that_makes_no_sense_is_a_clear_error(compare, ours, theirs, message):
    with pytest.raises(ValueError, match=message):
        compare(ours, theirs)


def test_averages_are_not_compared_as_single_attempts():
    with pytest.raises(ValueError, match=r"0 and 1 only.*compared by `compare_averages`"):
        compare_greedy({"a": 0.5}, {"a": 1})
