"""Text that a model may have written, for a line of a log or a terminal."""

import re
import unicodedata

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Categories of characters that are not seen: controls, formats, halves of pairs, separators."""


def one_line(text: str, width: int) -> str:
    r"""Text in one line that a terminal shows and does not obey.

    Args:
        text: Any text.
        width: Most characters that are taken over; of a longer text the middle is left out.

    Returns:
        Printable ASCII: everything else, line breaks and terminal sequences too, is an escape such
        as `\n`, `\x1b` or `\ud800`.
    """
    if len(text) > width:
        text = f"{text[: width // 2]} ... {text[-(width // 2) :]}"
    return re.sub("[^ -~]", lambda found: _escaped(found[0]), text)


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
