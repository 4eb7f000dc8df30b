"""Values as plain data, whatever library gave them, and a row's other columns in few bytes."""

from __future__ import annotations

import datetime
import decimal
import math
import pickle
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np


class NotPlainError(ValueError):
    """A value that has no form as plain data."""


def plain(value: Any) -> Any:
    """Bring a value into plain data: None, bool, int, float, text, bytes, lists and dicts of these.

    Arrays and tuples become lists, keys of dicts texts, dates ISO texts, decimals the text of
    their digits, UUIDs theirs.

    Args:
        value: As `datasets`, pyarrow, NumPy, pandas or a user's function give it.

    Returns:
        New lists and dicts; nothing of them is shared with `value`.

    Raises:
        NotPlainError: If there is anything else in it, such as an image.
    """
    try:
        return _plain(value)
    except RecursionError as error:
        raise NotPlainError(f"{type(value).__name__} nested too deep, or into itself") from error


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist()) if not isinstance(value, np.void) else _refuse(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, int | float | str | bytes):  # a class of its own, such as an IntEnum
        base: Any = next(kind for kind in (int, float, str, bytes) if isinstance(value, kind))
        return base.__new__(base, value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return _refuse(value)


def _refuse(value: Any) -> Any:
    if type(value).__name__ == "NAType":  # pandas' missing value; pandas need not be installed
        return None
    raise NotPlainError(f"{type(value).__module__}.{type(value).__qualname__} is no plain data")


def is_missing(value: Any) -> bool:
    """Return whether a value stands for "nothing": None, or the NaN of a table."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield everything in nested plain data that is no list or dict.

    Args:
        value: Plain data.

    Yields:
        Pairs of the keys and positions that lead to it, joined by dots, and the value.
    """
    if not isinstance(value, Mapping | list):
        yield "", value
        return
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        for path, leaf in leaves(item):
            yield f"{key}.{path}" if path else str(key), leaf


def path_where(value: Any, holds: Callable[[Any], bool]) -> str | None:
    """Find the first of the `leaves` for which something holds: its path, None if there is none."""
    return next((path for path, leaf in leaves(value) if holds(leaf)), None)


class Extra(Mapping[str, Any]):
    """The columns of a row beside its fields: a dict that cannot be changed, kept as bytes.

    Every access decodes anew: what a verifier does to a list it was given reaches nobody else.

    Args:
        values: Plain data by column.
    """

    __slots__ = ("packed",)

    def __init__(self, values: Mapping[str, Any] | None = None):
        self.packed = pickle.dumps(dict(values), protocol=5) if values else b""

    @classmethod
    def of_bytes(cls, packed: bytes) -> Extra:
        """The columns that another one's `packed` holds."""
        extra = cls()
        extra.packed = packed
        return extra

    def _values(self) -> dict[str, Any]:
        return pickle.loads(self.packed) if self.packed else {}

    def __getitem__(self, name: str) -> Any:
        return self._values()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values()) if self.packed else 0

    def __eq__(self, other: object) -> bool:
        return self._values() == dict(other) if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return Extra.of_bytes, (self.packed,)

    def __repr__(self) -> str:
        return f"Extra({self._values()!r})"
