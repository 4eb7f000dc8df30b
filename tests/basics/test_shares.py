from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.basics.shares import ceil_share, floor_share


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
