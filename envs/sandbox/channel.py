"""Length-prefixed messages of plain data over a socket."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

from prefix_rft_rllib.envs.sandbox.plain_data import PlainDataError, decode, encode

NO_LIMIT = 2**31
"""Of a message, in bytes: what the format can hold."""

_LENGTH = struct.Struct("<I")


class ChannelClosedError(Exception):
    """The other side is gone, or says what nobody could read."""


class Channel:
    """Both ways of one socket; every message is one plain value.

    Attributes:
        num_received: Bytes that arrived so far.

    Args:
        link: A connected stream socket, owned from here on.
        max_received: Size limit of one message that arrives.
        max_sent: Size limit of one message that leaves.
    """

    def __init__(self, link: socket.socket, max_received: int, max_sent: int = NO_LIMIT):
        self._link = link
        self._max_received = max_received
        self._max_sent = max_sent
        self.num_received = 0

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._link.fileno()

    def send(self, value: Any, replace: Callable[[Any], Any] | None = None) -> None:
        """Send a value.

        Raises:
            PlainDataError: If it is no plain data or too large; nothing is sent then.
            ChannelClosedError: If nobody listens.
        """
        data = encode(value, self._max_sent, replace)
        try:
            self._link.sendall(_LENGTH.pack(len(data)) + data)
        except OSError as error:
            raise ChannelClosedError(str(error)) from error

    def receive(self, make_handle: Callable[[int], Any] | None = None) -> Any:
        """Wait for a value.

        Raises:
            PlainDataError: If the message is malformed or announces more than `max_received`.
            ChannelClosedError: If the other side is gone.
        """
        (size,) = _LENGTH.unpack(self._read(_LENGTH.size))
        if size > self._max_received:
            raise PlainDataError(f"a message of {size} bytes is too large")
        return decode(self._read(size), make_handle)

    def close(self) -> None:
        """Close the socket."""
        self._link.close()

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                piece = self._link.recv(min(size - len(data), 2**20))
            except OSError as error:
                raise ChannelClosedError(str(error)) from error
            if not piece:
                raise ChannelClosedError("the other side is gone")
            data += piece
            self.num_received += len(piece)
        return bytes(data)
