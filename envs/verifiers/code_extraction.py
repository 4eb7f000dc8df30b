"""Which part of a response is the code, and which helpers of a prompt the tests may trust."""

from __future__ import annotations

import ast
import re

EXTRACTIONS = ("block", "whole", "block_or_whole")

# Three backticks with others behind them in the line are a piece of text, no fence.
_FENCE = re.compile(
    r"^(?P<indent>[ \t]*)(?P<marks>```+(?=[^`\n]*$)|~~~+)[ \t]*(?P<tag>[^\s`]*)[^\n]*$",
    re.MULTILINE,
)
_CODE_INDENT = 4
"""A fence so many columns deeper than the opening one may be a line of the code, of a docstring."""
_PYTHON_TAGS = ("python", "py", "python3", "py3")


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a text as pairs of tag and content.

    A fence is closed by one of at least its length without a tag; a block that is not closed
    ends with the text.
    """
    blocks = []
    fences = list(_FENCE.finditer(text))
    at = 0
    while at < len(fences):
        opening = fences[at]
        end = _closing(fences, at)
        stop = fences[end].start() if end < len(fences) else len(text)
        blocks.append((opening["tag"].lower(), text[opening.end() + 1 : stop]))
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
        elif fence["marks"].startswith(opening["marks"]) and not fence["tag"]:
            return place
    return len(fences) - num_deeper % 2


def _column(fence: re.Match[str]) -> int:
    return len(fence["indent"].expandtabs(4))


def extract_code(response: str, extract: str) -> str | None:
    """Return the code of a response.

    Args:
        response: The whole response.
        extract: "block": its last fenced block tagged as Python, or if there is none the last
            one without a tag. "whole": the response itself. "block_or_whole": the response
            itself where there is no such block.

    Returns:
        The code, None if there is none.
    """
    response = response.removeprefix("\ufeff")  # A byte order mark is no part of a text.
    if extract != "whole":
        blocks = code_blocks(response)
        for tags in (_PYTHON_TAGS, ("",)):
            found = [content for tag, content in blocks if tag in tags]
            if found:
                return found[-1] if found[-1].strip() else None
        if extract == "block":
            return None
    return response if response.strip() else None


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
