"""Which part of a response is the code, and which helpers of a prompt the tests may trust."""

from __future__ import annotations

import ast
import re

EXTRACTIONS = ("block", "whole", "block_or_whole")

# Before the marks: blanks, marks of quotations, marks of list items. Three backticks with others
# behind them in the line are a piece of text, no fence.
_FENCE = re.compile(
    r"^(?P<indent>[ \t]*(?:>[ \t]*)*)(?P<item>(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*)"
    r"(?P<marks>```+(?=[^`\n]*$)|~~~+)[ \t]*(?P<tag>[^\s`]*)[^\n]*$",
    re.MULTILINE,
)
_CODE_INDENT = 4
"""A fence so many columns deeper than the opening one may be a line of the code, of a docstring."""
_PYTHON_TAG = re.compile(r"\{?\.?(?:python|pypy|py)(?:[23](?:\.\d+)?)?(?![a-z0-9])")
_LAST_MARKER = re.compile(
    r"(?:<[|\uff5c][^<>\n]{1,60}[|\uff5c]>|</s>|\[/INST\]|<(?:eos|end_of_turn|turn\||eot)>)\Z"
)
"""A model's sign for the end of a turn, at the end of a text."""
_MARKER_LENGTH = 80
_THOUGHT_END = re.compile(r"</think(?:ing)?>(?=\s)")


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a text as pairs of tag and content.

    A fence is closed by one of at least its length without a tag; a block that is not closed
    ends with the text, maybe with the marks right behind its last line.
    """
    blocks = []
    fences = list(_FENCE.finditer(text))
    at = 0
    while at < len(fences):
        opening = fences[at]
        end = _closing(fences, at)
        stop = fences[end].start() if end < len(fences) else len(text)
        content = text[opening.end() + 1 : stop]
        if end == len(fences):
            content = content.rstrip().removesuffix(opening["marks"])
        if ">" in opening["indent"]:
            content = re.sub(r"^[ \t]*> ?", "", content, flags=re.MULTILINE)
        blocks.append((opening["tag"].lower(), content))
        at = end + 1
    return blocks


def _closing(fences: list[re.Match[str]], at: int) -> int:
    """Return which fence closes the one at a place; one past the last if none does.

    Fences that are much deeper stand in a docstring if they come in pairs; an odd one closes.
    """
    opening = fences[at]
    num_deeper = 0
    for place in range(at + 1, len(fences)):
        fence = fences[place]
        if _column(fence) - _column(opening) >= _CODE_INDENT:
            num_deeper += 1
        elif num_deeper % 2 == 1:
            return place - 1
        elif fence["marks"].startswith(opening["marks"]) and not _has_tag(fence):
            return place
    return len(fences) - num_deeper % 2


def _column(fence: re.Match[str]) -> int:
    return len((fence["indent"] + fence["item"]).expandtabs(4))


def _has_tag(fence: re.Match[str]) -> bool:
    """Return whether a language stands behind a fence; a model's `<|sign|>` is none."""
    return bool(fence["item"] or fence["tag"]) and not fence["tag"].startswith(("<", "["))


def extract_code(response: str, extract: str) -> str | None:
    """Return the code of a response, without the indentation of all of it.

    A byte order mark and a model's signs for the end of a turn (`<|im_end|>`, `</s>`, ...) behind
    the last line are no part of a response. Blocks behind a thought (`</think>`) go before those
    in it.

    Args:
        response: The whole response.
        extract: "block": its last fenced block tagged as Python, or if there is none the last
            one without a tag. "whole": the response itself. "block_or_whole": the response
            itself where there is no such block.

    Returns:
        The code, None if there is none.
    """
    response = _without_markers(response.removeprefix("\ufeff"))
    code: str | None = response
    if extract != "whole":
        code = _last_block(response)
        if code is None and extract == "block_or_whole":
            code = response
    return _dedented(code.removeprefix("\ufeff")) if code and code.strip() else None


def _last_block(response: str) -> str | None:
    """Return the content of the block that counts; "" if it is empty, None if there is none."""
    ends = list(_THOUGHT_END.finditer(response))
    texts = [response[ends[-1].end() :], response] if ends else [response]
    for text in texts:
        blocks = code_blocks(text)
        for wanted in (_PYTHON_TAG.match, lambda tag: not tag):
            found = [content for tag, content in blocks if wanted(tag)]
            if found:
                return found[-1]
    return None


def _without_markers(text: str) -> str:
    """Return a text without the signs of a turn's end behind it."""
    end = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        marker = _LAST_MARKER.search(text[max(0, end - _MARKER_LENGTH) : end])
        if marker is None:
            return text if end == len(text.rstrip()) else text[:end]
        end -= len(marker[0])


def _dedented(code: str) -> str:
    """Take the indentation of the first statement's line from all lines, as far as they have it."""
    lines = code.split("\n")
    first = next((line for line in lines if line.strip() and line.strip()[0] != "#"), "")
    indent = first[: len(first) - len(first.lstrip(" \t"))]
    if not indent:
        return code
    return "\n".join(line[_num_equal(indent, line) :] for line in lines)


def _num_equal(first: str, second: str) -> int:
    """Return how many characters two texts have in common at their start."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))


def helper_source(prompt: str, entry_point: str) -> str:
    """Return the functions that a prompt gives complete, beside the one to be written.

    The tests of some problems call such a helper. Taken from the prompt it is the real one; the
    attempt might define another.

    Args:
        prompt: The problem's text, with a fenced block of Python.
        entry_point: What is to be written.

    Returns:
        Python source, maybe empty.
    """
    code = extract_code(prompt, "block")
    try:
        tree = ast.parse(code or "")
    except (SyntaxError, ValueError):
        return ""
    kept = [
        node
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.FunctionDef) and node.name != entry_point and _is_complete(node))
    ]
    if not any(isinstance(node, ast.FunctionDef) for node in kept):
        return ""
    return "\n".join(ast.unparse(node) for node in kept)


def _is_complete(function: ast.FunctionDef) -> bool:
    """Return whether a function does something: more than a docstring, `...` or `pass`."""
    return any(
        not isinstance(node, ast.Pass)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in function.body
    )
