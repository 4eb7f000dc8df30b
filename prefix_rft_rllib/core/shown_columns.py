"""What pieces say that they read, and what they are shown of the columns."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol, cast

from prefix_rft_rllib.core.tokens import TokenColumns

OLD_POLICY_COLUMNS = frozenset({"old_logp", "entropy"})
"""Columns that the old-policy pass writes."""
READABLE_COLUMNS = OLD_POLICY_COLUMNS | {"reward"}
"""Columns that a piece reads only if its `reads` names them: not every row of every method has
them."""


class Reader(Protocol):
    """A piece that reads columns."""

    @property
    def reads(self) -> Collection[str]:
        """Names of `READABLE_COLUMNS`."""


def check_reads(piece: Reader) -> frozenset[str]:
    """Check what a piece says that it reads.

    Args:
        piece: A value or a selection.

    Returns:
        The names.

    Raises:
        ValueError: If a name is unknown.
    """
    names = [piece.reads] if isinstance(piece.reads, str) else list(piece.reads)
    if isinstance(piece.reads, str) or not READABLE_COLUMNS.issuperset(names):
        known = ", ".join(map(repr, sorted(READABLE_COLUMNS)))
        raise ValueError(
            f"`reads` of {piece!r} must be a set of names among {known}, got {piece.reads!r}. "
            'Write, for instance, `reads = frozenset({"entropy"})`; other columns need no mention.'
        )
    return frozenset(names)


class _ShownColumns:
    """A view of the columns that refuses what its reader has not declared."""

    def __init__(self, columns: TokenColumns, reader: Reader) -> None:
        self._columns = columns
        self._reader = reader

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._columns, name)
        if name not in READABLE_COLUMNS:
            return value
        if name not in self._reader.reads:
            raise ValueError(
                f"{self._reader!r} reads `{name}` without saying so. Add the name to its `reads`, "
                "so that the learner knows which rows need the old-policy pass."
            )
        if value is None:
            raise ValueError(
                f"{self._reader!r} reads `{name}`, which the old-policy pass writes. Run that pass "
                "before weights are prepared."
            )
        return value


def shown_to(reader: Reader, columns: TokenColumns) -> TokenColumns:
    """The columns as a piece may read them.

    Args:
        reader: The piece.
        columns: The rows.

    Returns:
        A view of them. Reading a column that the piece does not declare, or that is not there yet,
        is a `ValueError`.
    """
    return cast(TokenColumns, _ShownColumns(columns, reader))
