"""One running program of an attempt: its input is fed to it, its output kept within a limit."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence

from prefix_rft_rllib.envs.sandbox.attempt_main import Streams
from prefix_rft_rllib.envs.sandbox.keeper import Keeper

_PIECE = 2**16


class TooMuchOutputError(Exception):
    """The program printed more than it may."""


class Program:
    """A program and the pipes around it.

    Attributes:
        stdout: What it printed so far.
        stderr: What it printed there, as far as kept.

    Args:
        keeper: Starts it.
        link: Its end of the link to the judge; closed here.
        given: Its whole standard input.
        max_bytes: What it may print to either stream.
    """

    def __init__(self, keeper: Keeper, link: socket.socket, given: bytes, max_bytes: int):
        theirs_in, self._input = os.pipe()
        stdout, theirs_out = os.pipe()
        stderr, theirs_err = os.pipe()
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._outputs = {stdout: self.stdout, stderr: self.stderr}
        self._waiting = memoryview(given)
        self._max_bytes = max_bytes
        try:
            keeper.launch(Streams(link.fileno(), theirs_in, theirs_out, theirs_err))
        finally:
            for number in (theirs_in, theirs_out, theirs_err):
                os.close(number)
            link.close()
        os.set_blocking(self._input, False)
        if not given:
            self._close_input()

    @property
    def is_silent(self) -> bool:
        """True when nobody is left who could print."""
        return not self._outputs

    def wait(self, awaited: Sequence[int], seconds: float) -> list[int]:
        """Feed and drain the program until a descriptor is readable or something happened.

        Args:
            awaited: Other descriptors to look at.
            seconds: Longest time to wait.

        Returns:
            Those of `awaited` that are readable; maybe none.

        Raises:
            TooMuchOutputError: If it printed more than it may.
        """
        writers = [self._input] if self._input >= 0 else []
        readable, writable, _ = select.select([*awaited, *self._outputs], writers, [], seconds)
        if writable:
            self._feed()
        for number in [number for number in readable if number in self._outputs]:
            self._drain(number)
        return [number for number in readable if number in awaited]

    def close(self) -> None:
        """Close the pipes."""
        self._close_input()
        for number in list(self._outputs):
            os.close(number)
        self._outputs.clear()

    def _feed(self) -> None:
        try:
            written = os.write(self._input, self._waiting[:_PIECE])
        except BlockingIOError:
            return
        except OSError:  # It does not read, or has ended: that is its own business.
            self._close_input()
            return
        self._waiting = self._waiting[written:]
        if not self._waiting:
            self._close_input()

    def _drain(self, number: int) -> None:
        piece = os.read(number, _PIECE)
        if not piece:
            os.close(number)
            del self._outputs[number]
            return
        self._outputs[number] += piece
        if len(self._outputs[number]) > self._max_bytes:
            raise TooMuchOutputError

    def _close_input(self) -> None:
        if self._input >= 0:
            os.close(self._input)
            self._input = -1
