import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.core.prefix_schedules import (
    CosineLow,
    Fixed,
    Uniform,
    UniformWindow,
)


def no_steps():
    raise AssertionError("a window of shares does not ask for steps")


def draw_share(schedule, iteration, draw, num_tokens=1000):
    """The share drawn from a window that the state and the problem do not move."""
    window = schedule.window(iteration, schedule.initial_state(), None)
    assert window == schedule.window(iteration, {}, "a problem")
    return window.prefix(draw, num_tokens, no_steps).fraction


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
        assert schedule.window(iteration, {}, None) == UniformWindow(low, high)
        assert 0 <= low <= high <= 1
        assert low <= draw_share(schedule, iteration, draw) <= high


def test_rounding_never_lifts_the_lower_end_above_the_upper_one():
    assert 0.04 + 0.5 * 2 * (0.11 - 0.04) > 0.11
    assert CosineLow(start=0.11, end=0.04, high=0.11).low_at(0) == 0.11


def test_draws_are_linear_between_the_ends():
    assert draw_share(Uniform(0.2, 0.6), 3, 0.25) == pytest.approx(0.3, abs=1e-15)
    assert draw_share(Fixed(0.3), 3, 0.9) == 0.3
    # Iteration 250: window [0.5, 0.95].
    assert draw_share(CosineLow(), 250, 0.5) == pytest.approx(0.725, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fixed(95), "`fraction` must be in"),
        (lambda: Uniform(0.9, 0.1), r"`low` \(0.9\) must not be above `high` \(0.1\)"),
        (lambda: CosineLow(high=0.5), r"`start` \(0.95\) must not be above `high` \(0.5\)"),
        (lambda: CosineLow(start=0.1, end=0.5, high=0.2), "`end`"),
        (lambda: CosineLow(num_iterations=0), "`num_iterations` must be a whole number"),
    ],
)
def test_windows_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1, exclude_max=True), st.integers(1, 500))
def test_a_uniform_windows_draw_is_a_share_and_its_tokens(a, b, draw, num_tokens):
    low, high = sorted((a, b))
    fraction, tokens = UniformWindow(low, high).prefix(draw, num_tokens, no_steps)
    assert low <= fraction <= high + 1e-15
    # floor(u * |y*|), free of binary errors below 1e-9 tokens.
    assert tokens <= fraction * num_tokens + 1e-9 < tokens + 1 + 2e-9


def test_the_tokens_of_a_share_by_hand():
    # 0.2 + 0.25 * 0.4 = 0.3 of 11 tokens: floor(3.3); 0.29 of 100 is 29, though not in binary.
    assert UniformWindow(0.2, 0.6).prefix(0.25, 11, no_steps).num_tokens == 3
    assert UniformWindow(0.29, 0.29).prefix(0.7, 100, no_steps) == (0.29, 29)


def test_schedules_of_time_have_no_state():
    for schedule in (CosineLow(), Uniform(), Fixed(0.5)):
        assert schedule.initial_state() == {}
        assert schedule.next_state({}, None) == {}
