"""Text for people: shortened, in one line, shown by a terminal and not obeyed."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

LINE_ABOUT_THE_MIDDLE = "\n[... {num_left_out} characters not shown ...]\n"
"""A gap for texts of many lines."""

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Categories of characters that are not seen: controls, formats, halves of pairs, separators."""


def without_middle(text: str, width: int, gap: str = " ... ") -> str:
    """Text that is shown from both ends.

    Args:
        text: Any text.
        width: Most characters that are taken over; of a longer text half of them from each end.
        gap: Stands for the middle of a longer text; "{num_left_out}" in it is the number of
            characters that are left out.

    Returns:
        The text, or its ends with the gap between them.
    """
    if len(text) <= width:
        return text
    half = width // 2
    num_left_out = len(text) - 2 * half
    return text[:half] + gap.format(num_left_out=num_left_out) + text[len(text) - half :]


def end_of(text: str, width: int) -> str:
    """The last `width` characters of a text, after "..." if there are more."""
    return text if len(text) <= width else "..." + text[len(text) - width :]


def short_repr(value: Any, width: int = 80) -> str:
    """A value as Python writes it, in at most `width` characters; the end is left out, "..."."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        text = f"a value too long to write ({type(value).__name__})"
    return text if len(text) <= width else text[: width - 3] + "..."


def first_of(names: Sequence[str], num_shown: int, separator: str = ", ") -> str:
    """The first `num_shown` names, and how many more there are."""
    shown = separator.join(names[:num_shown])
    num_more = len(names) - num_shown
    return f"{shown} and {num_more} more" if num_more > 0 else shown


def one_line(text: str, width: int) -> str:
    r"""Text in one line that a terminal shows and does not obey.

    Args:
        text: Any text.
        width: Most characters that are taken over; of a longer text the middle is left out.

    Returns:
        Printable ASCII: everything else, line breaks and terminal sequences too, is an escape such
        as `\n`, `\x1b` or `\ud800`.
    """
    return re.sub("[^ -~]", lambda found: _escaped(found[0]), without_middle(text, width))


def without_controls(text: str) -> str:
    r"""Text that stays readable in every script, and that a terminal shows and does not obey.

    Args:
        text: Any text.

    Returns:
        The text with an escape such as `\x1b`, `\u202e` or `\ud800` in the place of every
        character that would not be seen; line breaks (`\n`) stay.
    """
    return "".join(
        found if found == "\n" or unicodedata.category(found) not in _HIDDEN else _escaped(found)
        for found in text
    )


def _escaped(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")
