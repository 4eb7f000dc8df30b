"""Values as plain data, whatever library gave them, and a row's other columns in few bytes."""

from __future__ import annotations

import datetime
import decimal
import math
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np


class NotPlainError(ValueError):
    """A value that has no form as plain data."""


def plain(value: Any) -> Any:
    """Bring a value into plain data: None, bool, int, float, text, bytes, lists and dicts of these.

    Arrays and tuples become lists, keys of dicts texts, dates ISO texts, decimals the text of
    their digits.

    Args:
        value: As `datasets`, pyarrow, NumPy, pandas or a user's function give it.

    Returns:
        New lists and dicts; nothing of them is shared with `value`.

    Raises:
        NotPlainError: If there is anything else in it, such as an image.
    """
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist()) if not isinstance(value, np.void) else _refuse(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, int | float | str | bytes):  # a class of its own, such as an IntEnum
        base: Any = next(kind for kind in (int, float, str, bytes) if isinstance(value, kind))
        return base.__new__(base, value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return _refuse(value)


def _refuse(value: Any) -> Any:
    raise NotPlainError(f"{type(value).__module__}.{type(value).__qualname__} is no plain data")


def is_missing(value: Any) -> bool:
    """Return whether a value stands for "nothing": None, or the NaN of a table."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def path_where(value: Any, holds: Callable[[Any], bool]) -> str | None:
    """Find the first value in nested plain data for which something holds.

    Args:
        value: Plain data.
        holds: Asked of everything that is no list or dict.

    Returns:
        The keys and positions that lead to it, joined by dots; None if there is none.
    """
    if isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            found = path_where(item, holds)
            if found is not None:
                return f"{key}.{found}" if found else str(key)
        return None
    return "" if holds(value) else None


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
