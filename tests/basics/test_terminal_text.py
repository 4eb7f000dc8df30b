"""Whatever a model wrote becomes one line that a terminal only shows."""

from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.basics.text import one_line, without_controls


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
