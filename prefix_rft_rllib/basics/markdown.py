"""Parts of the pages that are written from the code."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ARXIV = re.compile(r"arXiv (\d{4}\.\d{5})")
_PAGE = re.compile(r"docs/(\w+\.md)(#[\w-]+)?")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table.

    Args:
        heads: The titles of the columns.
        rows: The cells of each row, each one line of Markdown.

    Returns:
        Markdown.
    """
    lines = [heads, ["---"] * len(heads), *rows]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    lines_of_text = [f"| {' | '.join(line)} |" for line in cells]
    lines_of_text[1] = f"|{'---|' * len(heads)}"
    return "\n".join(lines_of_text)


def with_links(text: str) -> str:
    """Make links of arXiv numbers and of names of pages.

    Args:
        text: May name "arXiv 2507.01679" and "docs/pieces.md#state".

    Returns:
        The same for a page in `docs/`.
    """
    text = _ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)
    return _PAGE.sub(r"[\1](\1\2)", text)
