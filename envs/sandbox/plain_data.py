"""The only values that pass between an attempt and its judge, as bytes.

Exactly these types: None, bool, int, float, complex, str, bytes, bytearray, list, tuple, set,
frozenset, dict; beside them numbered handles, which stand for an object that stays where it is.
Decoding builds nothing else and runs no code of the sender, whatever the bytes are: a value of
exactly these types has no `__eq__` of anybody's but Python's own.

A value is one tag byte and its content. Integers are little-endian two's complement, lengths and
counts four bytes, texts UTF-8 with lone surrogates kept.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

MAX_DEPTH = 100

_COUNT = struct.Struct("<I")
_DOUBLE = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")
_SEQUENCES: dict[bytes, Callable[[Any], Any]] = {
    b"l": list,
    b"t": tuple,
    b"e": set,
    b"z": frozenset,
}
_SEQUENCE_TAGS = {kind: tag for tag, kind in _SEQUENCES.items()}


class PlainDataError(Exception):
    """The value, or the bytes, are not plain data within the limits."""


def value_as(bases: Sequence[type[Any]], value: Any) -> Any:
    """Return the value of an instance of a derived type as the first base that fits, or None."""
    for base in bases:
        if isinstance(value, base):
            # str() would ask the type for its name of the value.
            return str.__str__(value) if base is str else base(value)
    return None


class _Encoder:
    def __init__(self, max_bytes: int, replace: Callable[[Any], Any] | None):
        self._pieces: list[bytes] = []
        self._left = max_bytes
        self._replace = replace

    def result(self) -> bytes:
        return b"".join(self._pieces)

    def _put(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._left -= len(piece)
            self._pieces.append(piece)
        if self._left < 0:
            raise PlainDataError("the value is too large")

    def add(self, value: Any, depth: int = 0) -> None:
        if depth > MAX_DEPTH:
            raise PlainDataError(f"the value is nested more than {MAX_DEPTH} deep")
        kind = type(value)
        if value is None:
            self._put(b"N")
        elif kind is bool:
            self._put(b"T" if value else b"F")
        elif kind is int:
            size = value.bit_length() // 8 + 1
            self._room_for(size)
            self._put(b"i", _COUNT.pack(size), value.to_bytes(size, "little", signed=True))
        elif kind is float:
            self._put(b"f", _DOUBLE.pack(value))
        elif kind is complex:
            self._put(b"c", _COMPLEX.pack(value.real, value.imag))
        elif kind is str:
            self._room_for(len(value))
            data = value.encode("utf-8", "surrogatepass")
            self._put(b"s", _COUNT.pack(len(data)), data)
        elif kind in (bytes, bytearray):
            self._room_for(len(value))
            self._put(b"b" if kind is bytes else b"a", _COUNT.pack(len(value)), bytes(value))
        elif kind in _SEQUENCE_TAGS:
            self._room_for(len(value))
            self._put(_SEQUENCE_TAGS[kind], _COUNT.pack(len(value)))
            for item in value:
                self.add(item, depth + 1)
        elif kind is dict:
            self._room_for(len(value))
            self._put(b"d", _COUNT.pack(len(value)))
            for key, item in value.items():
                self.add(key, depth + 1)
                self.add(item, depth + 1)
        elif kind is Handle:
            self._put(b"h", _COUNT.pack(value.number))
        elif self._replace is not None:
            self.add(self._replace(value), depth + 1)
        else:
            raise PlainDataError(f"a value of type {kind.__name__} is no plain data")

    def _room_for(self, size: int) -> None:
        """Refuse before a copy of something huge is made."""
        if size > self._left:
            raise PlainDataError("the value is too large")


class Handle:
    """The number of an object that is kept by the attempt."""

    __slots__ = ("number",)

    def __init__(self, number: int):
        self.number = number


class _Decoder:
    def __init__(self, data: bytes, make_handle: Callable[[int], Any] | None):
        self._data = data
        self._at = 0
        self._make_handle = make_handle

    def all(self) -> Any:
        value = self._next(0)
        if self._at != len(self._data):
            raise PlainDataError("bytes are left over")
        return value

    def _take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) != size:
            raise PlainDataError("the bytes end too early")
        self._at += size
        return piece

    def _count(self) -> int:
        """Read a length; nothing can hold more items than there are bytes left."""
        (count,) = _COUNT.unpack(self._take(4))
        if count > len(self._data) - self._at:
            raise PlainDataError("a length is larger than the data")
        return int(count)

    def _next(self, depth: int) -> Any:
        if depth > MAX_DEPTH + 1:
            raise PlainDataError(f"the value is nested more than {MAX_DEPTH} deep")
        tag = self._take(1)
        if tag in b"NTF":
            return {b"N": None, b"T": True, b"F": False}[tag]
        if tag in b"isba":
            return self._bytes_of(tag)
        if tag == b"f":
            return _DOUBLE.unpack(self._take(8))[0]
        if tag == b"c":
            return complex(*_COMPLEX.unpack(self._take(16)))
        if tag == b"h" and self._make_handle is not None:
            return self._make_handle(_COUNT.unpack(self._take(4))[0])
        if tag in _SEQUENCES:
            items = [self._next(depth + 1) for _ in range(self._count())]
            return items if tag == b"l" else _SEQUENCES[tag](items)
        if tag == b"d":
            pairs = range(self._count())
            return {self._next(depth + 1): self._next(depth + 1) for _ in pairs}
        raise PlainDataError(f"unknown tag {tag!r}")

    def _bytes_of(self, tag: bytes) -> Any:
        data = self._take(self._count())
        if tag == b"i":
            return int.from_bytes(data, "little", signed=True)
        if tag == b"s":
            return data.decode("utf-8", "surrogatepass")
        return data if tag == b"b" else bytearray(data)


def encode(
    value: Any, max_bytes: int = 2**31, replace: Callable[[Any], Any] | None = None
) -> bytes:
    """Write a value as bytes.

    Args:
        value: What to write.
        max_bytes: Size limit of the result.
        replace: Called with a value of any other type; returns a plain value or a `Handle` in
            its place. Without it such a value is an error.

    Returns:
        The bytes.

    Raises:
        PlainDataError: If the value is too large, nested too deep, or no plain data.
    """
    encoder = _Encoder(max_bytes, replace)
    encoder.add(value)
    return encoder.result()


def decode(data: bytes, make_handle: Callable[[int], Any] | None = None) -> Any:
    """Read a value from bytes of any origin.

    Args:
        data: The bytes.
        make_handle: Returns what stands for the object of a number. Without it a handle is an
            error.

    Returns:
        A value of exactly the types listed in the module's docstring, or what `make_handle`
        returned, in it or instead of it.

    Raises:
        PlainDataError: If the bytes are not what `encode` writes: cut, too deep, an unknown
            tag, an unhashable key. Never another exception, except those of `make_handle`.
    """
    try:
        return _Decoder(data, make_handle).all()
    except (TypeError, ValueError, RecursionError, MemoryError) as error:
        raise PlainDataError(f"malformed: {error}") from error
