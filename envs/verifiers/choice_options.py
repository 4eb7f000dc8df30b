r"""Options of a multiple-choice problem, read from its prompt; plain text work on clean text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

_LABEL = re.compile(r"(?:^|(?<=[\s$]))(?:\(([A-Z])\)|([A-Z])[.):](?= ))")
_STYLE = r"\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathsf|mathit|mathbb|operatorname)"
_STYLED = re.compile(_STYLE + r" ?\{([^{}]*)\}")
# A backslash that ends the text would be a blank with any blank behind it.
_BLANKS = re.compile(r"(?:[^\S\n]|\\[ ,;:!]|\\(?=\s*\Z)|~|\\q?quad(?![a-zA-Z]))+")
_NEWLINES = re.compile(r" ?\n[ \n]*")
_WRAPPINGS = (
    r"\*\*\(?([A-Z])[.):]{0,2}\*\*",
    r"(?<!\*)\*\(?([A-Z])[.)]?\*(?!\*)",
    r"__\(?([A-Z])[.):]?\)?__",
    r"`{1,3}\(?([A-Z])\)?`{1,3}",
    r"[\"']\(?([A-Z])[.)]?[\"'](?![a-zA-Z])",
    r"\[([A-Z])\]",
    r"\${1,2} ?\(?([A-Z])\)?\.? ?\${1,2}",
    r"\\\( ?\(?([A-Z])\)? ?\\\)",
    r"\\\[ ?\(?([A-Z])\)? ?\\\]",
    _STYLE + r" ?\{ ?\(?([A-Z])[.)]?\)? ?\}",
)
_LONE_LETTER = re.compile("|".join(_WRAPPINGS))
_EMPHASIS = re.compile(r"\*\*+|__+|`+|(?<!\w)\*(?=\S)|(?<=\S)\*(?!\w)")
_BULLET = re.compile(r"^(?:[#>*\u2022-]+ )+", re.MULTILINE)
# Quotes, dashes and the multiplication sign as they are typed.
_TYPED = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014\u2212\u00d7", "''\"\"---*")
_MAX_NESTED = 3


def clean(text: str) -> str:
    r"""Bring marked-up letters and blanks into one form.

    Args:
        text: Any text.

    Returns:
        The text in Unicode's form NFKC with plain quotes and dashes, single blanks and line ends; a
        letter that stands alone in emphasis, mathematics, quotes, square brackets or `\text{}` as
        `(A)`; no other emphasis and no marks of lists or headings.
    """
    text = unicodedata.normalize("NFKC", text).translate(_TYPED)
    text = _NEWLINES.sub("\n", _BLANKS.sub(" ", text))
    for _ in range(_MAX_NESTED):
        text = _LONE_LETTER.sub(lambda match: f"({match[match.lastindex or 0]})", text)
        text = _STYLED.sub(r"\1", text)
    return _BULLET.sub("", _EMPHASIS.sub("", text)).strip()


def same_words(text: str) -> str:
    """Return what has to be equal of two option texts: letters, digits and signs, no case."""
    return re.sub(r"[\s$]+", "", text).rstrip(".,;:").casefold()


def read_options(prompt: str) -> Mapping[str, str]:
    """Read the options of a problem.

    Args:
        prompt: The problem, with options that are labelled `(A)`, `A.`, `A)` or `A:`, one after
            the other from A on, each on a line of its own or all on one.

    Returns:
        Option texts, as `clean` leaves them, by letter; of several lists the last. Empty if there
        are not two options.
    """
    text = clean(prompt)
    labels = list(_LABEL.finditer(text))
    letters = "".join(match[1] or match[2] for match in labels)
    start = letters.rfind("AB")
    if start < 0:
        return {}
    length = 2
    while start + length < len(letters) and ord(letters[start + length]) == ord("A") + length:
        length += 1
    options = {}
    for i in range(start, start + length):
        end = labels[i + 1].start() if i + 1 < start + length else len(text)
        options[letters[i]] = text[labels[i].end() : end].strip().split("\n")[0].strip()
    return options
