r"""Where the answer stands in a response; plain text work, standard library only.

Every function here is linear in the length of its input, so it is safe to run in the
caller's process on hostile text.
"""

from __future__ import annotations

import re

_BOX_COMMAND = re.compile(r"\\f?boxed(?![a-zA-Z])|\\fbox(?![a-zA-Z])")
# An escaped character (`\{`, `\\`) is consumed as a pair, so it never counts as a brace.
_BRACE_TOKEN = re.compile(r"\\.|[{}]", re.DOTALL)
_BARE_BOX_CONTENT = re.compile(r"\s*([^\s{}$\\]+)")
_PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,14}")

MAX_ANSWER_CHARS = 10_000
"""Longer answers are not read at all: they are `UNPARSEABLE`."""


def final_box(response: str) -> str | None:
    r"""Return the content of the response's last box.

    A box is `\boxed{...}` or `\fbox{...}` with balanced braces (escaped braces do not
    count), or `\boxed 5` without braces, which reaches to the next blank, `$` or command.

    Args:
        response: Any text.

    Returns:
        The content without surrounding blanks, or None if there is no box, the last box
        is never closed, or it is empty. An earlier box does not stand in for a broken
        last one.
    """
    last = None
    for last in _BOX_COMMAND.finditer(response):  # noqa: B007
        pass
    if last is None:
        return None
    start = last.end()
    while start < len(response) and response[start].isspace():
        start += 1
    if start < len(response) and response[start] == "{":
        end = closing_brace(response, start)
        return None if end is None else response[start + 1 : end].strip() or None
    bare = _BARE_BOX_CONTENT.match(response, last.end())
    return bare.group(1).rstrip(".,;:") or None if bare else None


def closing_brace(text: str, opening: int) -> int | None:
    r"""Return the index of the brace that closes the one at `opening`, or None."""
    depth = 0
    for token in _BRACE_TOKEN.finditer(text, opening):
        if token.group() == "{":
            depth += 1
        elif token.group() == "}":
            depth -= 1
            if depth == 0:
                return token.start()
    return None


def is_plain_integer(answer: str) -> bool:
    """True for an integer of at most 15 digits in its only usual spelling."""
    return _PLAIN_INTEGER.fullmatch(answer) is not None


def has_content(answer: str) -> bool:
    """True if the answer holds a letter, a digit or one of the signs for no/all/infinity."""
    return any(character.isalnum() or character in "∅∞" for character in answer)
