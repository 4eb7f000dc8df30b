"""Token ids in four bytes each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


class TokenIds(Sequence[int]):
    """Token ids that cannot be changed: a tuple of int in its behaviour, an array in its memory.

    Equal to a tuple or another `TokenIds` of the same numbers. A slice is a view.

    Args:
        ids: Token ids. Shape (N,); an int32 array is not copied.
    """

    __slots__ = ("_array",)

    def __init__(self, ids: ArrayLike = ()):
        self._array = np.asarray(ids, dtype=np.int32).view()
        self._array.flags.writeable = False

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> TokenIds: ...

    def __getitem__(self, index: int | slice) -> int | TokenIds:
        found = self._array[index]
        return TokenIds(found) if isinstance(index, slice) else int(found)

    def __iter__(self) -> Iterator[int]:
        return iter(self._array.tolist())

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._array, dtype=dtype, copy=copy)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TokenIds):
            return np.array_equal(self._array, other._array)
        return tuple(self) == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"TokenIds({self._array.tolist()})"
