"""Which values are in a range, and what is said of one that is not."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from prefix_rft_rllib.basics.ranges import (
    FLAG,
    PATH,
    SHARE,
    TEXT,
    Range,
    any_of,
    mapping,
    one_of,
    only,
    optional,
    real,
    texts,
    whole,
)

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "inside", "outside"),
    [
        (whole(), [-3, 0, 10**30, np.int64(2)], [1.0, "1", True, None, NAN]),
        (whole(1), [1, np.int32(7)], [0, -1, 1.0, np.float64(1), True, None]),
        (whole(0, 2), [0, 2], [-1, 3, 1.5]),
        (real(), [-1.5, 0, Fraction(1, 3), 10**400], [NAN, INFINITY, -INFINITY, "0", True, None]),
        (real(0), [0, 0.0, 5, np.float32(0.5)], [-0.1, NAN, INFINITY, "0.1", None, True, 1j]),
        (real(above=0), [1e-300], [0, -1.0, INFINITY]),
        (real(above=1, may_be_infinite=True), [1.5, INFINITY], [1, -INFINITY, NAN]),
        (real(0, below=1), [0, 0.999], [1, 1.0, -0.1]),
        (real(above=0, most=1), [1, 0.001], [0, 1.001]),
        (SHARE, [0, 1, 0.5], [-0.1, 1.5, NAN, INFINITY, "0.2", None, True]),
        (FLAG, [True, False], [0, 1, None, "True", np.True_]),
        (TEXT, ["", "a"], [b"a", 1, None, Path("a")]),
        (PATH, ["a", Path("a")], [b"a", 1, None]),
        (mapping(), [{}, {"a": 1}], [[], None, {1: 2}, [("a", 1)]]),
        (texts("names"), [[], ("a",), {"a"}], ["a", None, [1], {"a": 1}]),
        (one_of(("a", 1, None)), ["a", 1, None], ["b", 1.0, True, ["a"], np.zeros(2)]),
        (only("auto"), ["auto"], ["Auto", None]),
        (optional(whole(1)), [None, 1], [0, "None"]),
        (any_of(real(1), only(None), only("auto")), [1, None, "auto"], [0.5, "none", True]),
    ],
)
def test_what_is_inside_and_outside(values, inside, outside):
    assert [value for value in inside if not values.contains(value)] == []
    assert [value for value in outside if values.contains(value)] == []
    assert all(values.complaint(value) is None for value in inside)


@pytest.mark.parametrize(
    ("values", "value", "message"),
    [
        (whole(), 1.5, "`x` must be a whole number, got 1.5."),
        (whole(1), 0, "`x` must be a whole number of at least 1, got 0."),
        (whole(0, 9), 10, "`x` must be a whole number in [0, 9], got 10."),
        (real(), "1", "`x` must be a finite number, got '1'."),
        (real(0), NAN, "`x` must be a finite number of at least 0, got nan."),
        (real(above=0.5), 0.5, "`x` must be a finite number above 0.5, got 0.5."),
        (real(above=0, may_be_infinite=True), 0, "`x` must be a number above 0, got 0."),
        (real(above=0, below=3), 3, "`x` must be in (0, 3), got 3."),
        (FLAG, 1, "`x` must be True or False, got 1."),
        (one_of(("a", "b")), "c", "`x` must be one of 'a', 'b', got 'c'."),
        (mapping("names to sizes"), 3, "`x` must be a dict of names to sizes, got 3."),
        (texts("names"), "a", "`x` must be a list of names, got 'a'."),
        (
            optional(real(above=0), "for no limit"),
            -1,
            "`x` must be a finite number above 0, or None for no limit, got -1.",
        ),
        (
            any_of(real(1), only(None, "for none"), only("auto")),
            0,
            "`x` must be a finite number of at least 1, None for none, or 'auto', got 0.",
        ),
        (
            whole(1).advising("Try 4."),
            0,
            "`x` must be a whole number of at least 1, got 0. Try 4.",
        ),
        (
            optional(whole(1).advising("Try 4."), "for all"),
            0,
            "`x` must be a whole number of at least 1, or None for all, got 0. Try 4.",
        ),
    ],
)
def test_a_message_says_what_is_allowed_the_value_and_what_to_try(values, value, message):
    with pytest.raises(ValueError) as caught:
        values.check("x", value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("values", "value", "advice"),
    [
        (SHARE, 20, " It is a share, not a percentage: use 0.2 for 20%."),
        (SHARE, 100, " It is a share, not a percentage: use 1 for 100%."),
        (SHARE, 100.5, ""),
        (SHARE, -20, ""),
        (SHARE, "20", ""),
        (real(0, below=1), 20, " It is a share, not a percentage: use 0.2 for 20%."),
        (real(0, below=1), 100, ""),  # 1 is not allowed
        (real(above=0, most=1), 100, " It is a share, not a percentage: use 1 for 100%."),
        (real(0, 2), 20, ""),
        (SHARE.advising("The paper has 0.2."), 20, None),
    ],
)
def test_who_writes_a_percentage_reads_the_share(values, value, advice):
    expected = f"must be {values.allowed}, got {value!r}.{advice}"
    if advice is None:
        expected = (
            "must be in [0, 1], got 20. It is a share, not a percentage: use 0.2 for 20%. "
            "The paper has 0.2."
        )
    assert values.complaint(value) == expected


def test_a_value_that_is_allowed_passes_and_ranges_of_ones_own_can_be_made():
    even = Range("an even number", lambda value: value % 2 == 0)
    even.check("x", 4)
    with pytest.raises(ValueError, match="`x` must be an even number, got 3"):
        even.check("x", 3)
