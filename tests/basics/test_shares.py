from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.basics.shares import (
    ceil_share,
    check_at_least,
    check_coefficient,
    check_fraction,
    floor_share,
)


@given(st.integers(0, 100), st.integers(0, 100_000))
def test_shares_in_whole_percent_are_rounded_as_exact_fractions(percent, count):
    exact = Fraction(percent, 100) * count
    assert floor_share(percent / 100, count) == exact.numerator // exact.denominator
    assert ceil_share(percent / 100, count) == -(-exact.numerator // exact.denominator)


def test_shares_are_free_of_binary_errors_that_plain_floor_and_ceil_have():
    assert 0.29 * 100 < 29  # so plain floor gives 28
    assert floor_share(0.29, 100) == 29
    assert 0.07 * 100 > 7  # so plain ceil gives 8
    assert ceil_share(0.07, 100) == 7
    assert ceil_share(0.2, 5) == 1
    assert ceil_share(0.2, 6) == 2


def test_a_percentage_is_refused_with_the_share_to_use():
    with pytest.raises(ValueError, match=r"`keep_fraction` must be in \[0, 1\], got 20\. .* 0\.2 "):
        check_fraction("keep_fraction", 20)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), float("inf"), "0.2", None, True])
def test_what_is_not_a_share_is_refused(value):
    with pytest.raises(ValueError, match="`share` must be"):
        check_fraction("share", value)


@pytest.mark.parametrize("value", [0, 1, 0.5])
def test_shares_are_accepted(value):
    check_fraction("share", value)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "0.1", None, True])
def test_what_is_no_coefficient_is_refused(value):
    with pytest.raises(ValueError, match="`coeff` must be a finite number of at least 0, got"):
        check_coefficient("coeff", value)


@pytest.mark.parametrize("value", [0, 1, 0.001, 5])
def test_coefficients_are_accepted(value):
    check_coefficient("coeff", value)


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None])
def test_counts_that_are_no_positive_integers_are_refused(value):
    with pytest.raises(ValueError, match="`count` must be an integer of at least 1"):
        check_at_least("count", value, 1)
