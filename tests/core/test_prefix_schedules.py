import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.core.prefix_schedules import CosineLow, Fixed, Uniform


@pytest.mark.parametrize(
    ("iteration", "low"),
    [
        (0, 0.95),  # cos 0 = 1: 0.05 + 0.5 * 2 * 0.9
        (100, 0.05 + 0.45 * (1 + 0.8090169943749475)),  # cos(pi / 5) = (1 + sqrt 5) / 4
        (250, 0.50),  # cos(pi / 2) = 0: 0.05 + 0.5 * 0.9
        (500 / 3, 0.725),  # cos(pi / 3) = 1/2: 0.05 + 0.75 * 0.9
        (500, 0.05),  # cos pi = -1
        (501, 0.05),  # and there it stays
        (100_000, 0.05),
    ],
)
def test_the_papers_window_opens_by_half_a_cosine(iteration, low):
    assert CosineLow().low_at(iteration) == pytest.approx(low, abs=1e-12)
    assert CosineLow().high == 0.95


@given(st.integers(0, 1000), st.floats(0, 1, exclude_max=True))
def test_draws_stay_inside_the_window(iteration, draw):
    for schedule in (CosineLow(), Uniform(0.05, 0.95), Fixed(0.3)):
        low, high = schedule.low_at(iteration), schedule.high
        assert 0 <= low <= high <= 1
        assert low <= schedule.draw(iteration, draw) <= high


def test_rounding_never_lifts_the_lower_end_above_the_upper_one():
    assert 0.04 + 0.5 * 2 * (0.11 - 0.04) > 0.11
    assert CosineLow(start=0.11, end=0.04, high=0.11).low_at(0) == 0.11


def test_draws_are_linear_between_the_ends():
    assert Uniform(0.2, 0.6).draw(3, 0.25) == pytest.approx(0.3, abs=1e-15)
    assert Fixed(0.3).draw(3, 0.9) == 0.3
    # Iteration 250: window [0.5, 0.95].
    assert CosineLow().draw(250, 0.5) == pytest.approx(0.725, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fixed(95), "`fraction` must be in"),
        (lambda: Uniform(0.9, 0.1), r"`low` \(0.9\) must not be above `high` \(0.1\)"),
        (lambda: CosineLow(high=0.5), r"`start` \(0.95\) must not be above `high` \(0.5\)"),
        (lambda: CosineLow(start=0.1, end=0.5, high=0.2), "`end`"),
        (lambda: CosineLow(num_iterations=0), "`num_iterations` must be an integer"),
    ],
)
def test_windows_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
