"""Shortened text, and whatever a model wrote as something that a terminal only shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.basics.text import (
    LINE_ABOUT_THE_MIDDLE,
    end_of,
    first_of,
    one_line,
    short_repr,
    without_controls,
    without_middle,
)


@pytest.mark.parametrize(
    ("width", "expected"),
    [(7, "abcdefg"), (6, "abc ... efg"), (5, "ab ... fg"), (1, " ... "), (0, " ... ")],
)
def test_the_ends_of_a_long_text_have_the_same_length(width, expected):
    assert without_middle("abcdefg", width) == expected


def test_a_gap_may_say_how_much_is_left_out():
    shown = without_middle("a" * 3 + "b" * 10 + "c" * 3, 6, LINE_ABOUT_THE_MIDDLE)
    assert shown == "aaa\n[... 10 characters not shown ...]\nccc"
    # The text's own braces are text.
    assert without_middle("{x}}{y}", 6, "|") == "{x}|{y}"


def test_the_end_of_a_text_is_shown():
    assert end_of("abcdef", 6) == "abcdef"
    assert end_of("abcdefg", 6) == "...bcdefg"
    assert end_of("ab", 0) == "..."


def test_values_are_shown_as_python_writes_them_up_to_a_width():
    assert short_repr({"a": "é"}) == "{'a': 'é'}"
    assert short_repr("x" * 78) == repr("x" * 78)
    assert short_repr("x" * 79) == "'" + "x" * 76 + "..."
    assert short_repr([1, 2, 3], 8) == "[1, 2..."
    assert short_repr(10**5000) == "a value too long to write (int)"


def test_of_many_names_the_first_are_shown_and_the_others_counted():
    assert first_of(["a", "b"], 2) == "a, b"
    assert first_of(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert first_of(["a", "b", "c"], 2, "; ") == "a; b and 1 more"
    assert first_of([], 2) == ""


def test_special_characters_become_escapes_and_others_stay():
    text = "a b\n\t\x1b[31m\x9b0m\0\x7f é\u202e\ud800 \\ '\""
    assert one_line(text, 100) == (r"a b\n\t\x1b[31m\x9b0m\x00\x7f \xe9\u202e\ud800 \ '" + '"')


def test_of_a_long_text_the_middle_is_left_out():
    assert one_line("abcdef", 6) == "abcdef"
    assert one_line("abcdefg", 6) == "abc ... efg"
    # Escapes come after the cut: none is cut in two.
    assert one_line("\n" * 9, 2) == r"\n ... \n"


@given(st.text(st.characters(exclude_categories=())), st.integers(2, 40))
def test_any_text_becomes_one_line_of_printable_ascii(text, width):
    shown = one_line(text, width)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 10 * width + 5


def test_hidden_characters_are_escapes_and_everything_readable_stays():
    text = "é 中 ∑ 😀\n\t\x1b[2J\x9b\u202e\u2028\ud800\ue000"
    assert without_controls(text) == ("é 中 ∑ 😀\n\\t\\x1b[2J\\x9b\\u202e\\u2028\\ud800\\ue000")
