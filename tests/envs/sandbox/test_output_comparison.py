"""What a program prints against what a test expects: by hand, by property, with hostile texts."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.envs.sandbox.output_comparison import DEFAULT_TOLERANCE, same_output

HUGE = "1" + 5000 * "0"


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("0.333333", "0.3333333333333333\n"),
        ("2", "2.0"),
        ("2.0", "2"),
        ("2", "1.9999999999"),
        ("-0.0", "0"),
        ("0", "-0.0"),
        (".5", "0.5"),
        ("2.", "2"),
        ("1e5", "100000"),
        ("10000000000000000", "1e+16"),
        ("0.00001", "1e-05"),
        ("1234567.891", "1234567.9"),
        ("1e300", "1.0000000001e300"),
        ("YES 0.5\nNO 1.5", "YES 0.50\r\nNO 1.50\r\n"),
        ("3", "\ufeff3"),
        ("\ufeff3", "3"),
        (HUGE, HUGE),
        ("nan inf", "nan inf"),
        ("", " \n"),
    ],
)
def test_equal_outputs(expected, printed):
    assert same_output(printed, expected, DEFAULT_TOLERANCE)


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("0.2", "0.10"),
        ("0.333333", "0.33333"),
        ("0.333333", "0.333335"),
        ("2", "2.00001"),
        (str(10**18), str(10**18 + 1)),
        (str(10**18), f"{10**18 + 1}.0"),
        (f"{10**18}.0", str(10**18 + 1)),
        ("10000000", "10000000.4"),
        ("9007199254740993", "9007199254740992.0"),
        (HUGE, HUGE[:-1] + "1"),
        (HUGE, "inf"),
        ("0.5", "-0.5"),
        ("1 2", "1 2 3"),
        ("1 2 3", "1 2"),
        ("1 2", "2 1"),
        ("Yes", "YES"),
        ("1000", "1_000"),
        ("16", "0x10"),
        ("11", "0011"),
        ("0011", "11"),
        ("5", "+5"),
        ("+5", "5"),
        ("1,000", "1000"),
        ("0.5,", "0.50,"),
        ("nan", "0"),
        ("1e400", "inf"),
        ("inf", "Infinity"),
        ("1", "\u0661"),  # ARABIC-INDIC DIGIT ONE
        ("2", "\u00b2"),
        ("1", "True"),
        ("", "0"),
        ("0", ""),
    ],
)
def test_different_outputs(expected, printed):
    assert not same_output(printed, expected, DEFAULT_TOLERANCE)


def test_without_a_tolerance_only_the_spelling_is_free():
    assert same_output("2.50 1e1", "2.5 10", 0.0)
    assert not same_output("2.5000000000000000000000000001", "2.5", 0.0)
    assert same_output("0.12", "0.1", 0.3)


@given(st.integers(), st.integers())
def test_integers_agree_only_if_equal_however_they_are_written(a, b):
    for printed in (str(a), f"{a}.0", f"{a}e0"):
        assert same_output(printed, str(b), 0.1) == (a == b)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_agrees_with_its_other_spellings(x):
    assert same_output(f"{x!r} {x:.17e}", f"{x:.17e} {x!r}", 1e-15)


@given(st.floats(1e-3, 1e9), st.floats(-1e-3, 1e-3))
def test_the_tolerance_is_absolute_and_relative(x, error):
    y = x * (1 + error)
    far = abs(y - x) / max(1.0, x)
    if not 0.9e-6 < far < 1.1e-6:
        assert same_output(f"{y:.12f}", f"{x:.12f}", 1e-6) == (far < 1e-6)


@given(st.text(alphabet="0123456789.eE+-_xnaif \n", max_size=40), st.text(max_size=20))
def test_any_text_agrees_with_itself_and_no_text_raises(a, b):
    assert same_output(a, a, 1e-6)
    same_output(a, b, 1e-6)
    same_output(b, a, 1e-6)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("9" * 5_000_000, "9" * 4_999_999 + "8"),
        ("0." + "3" * 5_000_000, "0.3"),
        ("1e999999999", "1"),
        ("1e-999999999", "0.5"),
        ("1e9999", "1"),
        ("1e" + "9" * 1_000_000, "1e9"),
        ("-" * 5_000_000, "1"),
        ("1 " * 5_000_000, "1"),
        ("1.0 " * 200_000, "1 " * 199_999 + "2"),
        (" " * 5_000_000, "1"),
    ],
)
def test_hostile_output_takes_linear_time(printed, expected):
    start = time.process_time()
    assert not same_output(printed, expected, DEFAULT_TOLERANCE)
    assert time.process_time() - start < 5.0
