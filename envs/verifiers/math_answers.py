r"""Where the answer stands in a response; plain text work, standard library only.

Every function here is linear in the length of its input, so it is safe to run in the
caller's process on hostile text.
"""

from __future__ import annotations

import re

_BOX_COMMAND = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])")
# An escaped character (`\{`, `\\`) is consumed as a pair, so it never counts as a brace.
_BRACE_TOKEN = re.compile(r"\\.|[{}]", re.DOTALL)
_BARE_BOX_CONTENT = re.compile(r"\s*((?:[-+]?\d[^\s{}$\\]*)|[a-zA-Z](?=[.,;:]?\s*(?:\$|$)))")
_PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,14}")
_EMPTY_SET = re.compile(r"\\\{\s*\\\}")
_OR = re.compile(r"\bor\b")
_MAX_BETWEEN = 60
_PLACEHOLDER = re.compile(r"(?:\s|\.|\\[lc]?dots|\\ |_|~)*")
_BETWEEN_BOXES = re.compile(
    r"(?:\s|\$|\\[()\[\]]|\\q?quad|,)*(?:,|(?:\\text\s*\{)?[\w() ]{0,24}\b(?:and|or)\s*\}?)"
    r"(?:\s|\$|\\[()\[\]]|\\q?quad|,)*"
)
_ANSWER_TAGS = re.compile(
    r"<answer>((?:(?!</?answer>).){0,12000})</answer>", re.DOTALL | re.IGNORECASE
)

MAX_ANSWER_CHARS = 10_000
"""Longer answers are not read at all: they are `UNPARSEABLE`."""


def final_box(response: str) -> str | None:
    r"""Return the content of the response's last box.

    A box is `\boxed{...}` or `\fbox{...}` with balanced braces (escaped braces do not
    count), or `\boxed 5` without braces, which reaches to the next blank, `$` or command.
    `\boxed{}`, `\boxed{...}` and a `\boxed` in front of a word only mention the command and
    are passed over. Boxes side by side (`\boxed{2}, \boxed{3}`) are one answer with commas.

    Args:
        response: Any text.

    Returns:
        The content without surrounding blanks, or None if there is no box or the last box
        is never closed. An earlier box does not stand in for a broken last one.
    """
    answer = final_boxed(response)
    return None if answer is None else answer[0]


def final_boxed(response: str) -> tuple[str, int] | None:
    """Like `final_box`, with the index of the character behind the box."""
    answer = ""
    first_start = last_end = 0
    for command in reversed(list(_BOX_COMMAND.finditer(response))):
        found = _box_content(response, command.end())
        if found is None:
            break
        content, end = found
        if not content:
            continue
        if answer:
            between = response[end:first_start] if first_start - end <= _MAX_BETWEEN else "."
            if end > first_start or not _BETWEEN_BOXES.fullmatch(between):
                break
            answer = (r"\text{ or }" if _OR.search(between) else ", ") + answer
        answer = content + answer
        last_end = last_end or end
        first_start = command.start()
    return (answer, last_end) if answer else None


def _box_content(response: str, start: int) -> tuple[str, int] | None:
    """Return a box's content ("" if it is only mentioned) and its end; None if it is broken."""
    position = start
    while position < len(response) and response[position].isspace():
        position += 1
    if position < len(response) and response[position] == "{":
        end = closing_brace(response, position)
        if end is None:
            return None
        content = response[position + 1 : end].strip()
        return ("" if _PLACEHOLDER.fullmatch(content) else content), end + 1
    bare = _BARE_BOX_CONTENT.match(response, start)
    return (bare.group(1).rstrip(".,;:"), bare.end()) if bare else ("", start)


def tagged_answer(response: str) -> tuple[str, int] | None:
    """Return what stands in the last `<answer>...</answer>`, and the index behind it."""
    found = None
    for found in _ANSWER_TAGS.finditer(response):  # noqa: B007
        pass
    if found is None or not found[1].strip():
        return None
    return found[1].strip(), found.end()


def boxed_answer(response: str) -> str | None:
    r"""Return the answer of a response that marks it: the last box, or `<answer>` tags.

    Tags count where no box stands in or behind them.

    Args:
        response: Any text.

    Returns:
        The marked text, or None.
    """
    tagged = tagged_answer(response)
    if tagged is None or _BOX_COMMAND.search(tagged[0]):
        return final_box(response)
    box = final_boxed(response)
    if box is None and _BOX_COMMAND.search(response, tagged[1]):
        return None
    return box[0] if box is not None and box[1] > tagged[1] else tagged[0]


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
    r"""True if the answer holds a letter, a digit, a sign such as infinity, or `\{\}`."""
    has_sign = any(character.isalnum() or character in "∅∞" for character in answer)
    return has_sign or _EMPTY_SET.search(answer) is not None
