"""Readable tables of pieces: what `print(method)` shows."""

from __future__ import annotations

from collections.abc import Iterable


def table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Write a table of two columns.

    Args:
        title: The first line.
        rows: Name and text of each other line.

    Returns:
        The lines, the texts below each other.
    """
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in rows)])
