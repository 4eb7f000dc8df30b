"""One running program of an attempt: its input is a file, its output kept within a limit."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import tempfile
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
        theirs_in = _input_file(given)
        stdout, theirs_out = os.pipe()
        stderr, theirs_err = os.pipe()
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._outputs = {stdout: self.stdout, stderr: self.stderr}
        self._max_bytes = max_bytes
        try:
            keeper.launch(Streams(link.fileno(), theirs_in, theirs_out, theirs_err))
        finally:
            for number in (theirs_in, theirs_out, theirs_err):
                os.close(number)
            link.close()

    @property
    def is_silent(self) -> bool:
        """True when nobody is left who could print."""
        return not self._outputs

    def wait(self, awaited: Sequence[int], seconds: float) -> list[int]:
        """Drain the program until a descriptor is readable or something happened.

        Args:
            awaited: Other descriptors to look at.
            seconds: Longest time to wait.

        Returns:
            Those of `awaited` that are readable; maybe none.

        Raises:
            TooMuchOutputError: If it printed more than it may.
        """
        readable, _, _ = select.select([*awaited, *self._outputs], [], [], seconds)
        for number in [number for number in readable if number in self._outputs]:
            self._drain(number)
        return [number for number in readable if number in awaited]

    def close(self) -> None:
        """Close the pipes."""
        for number in list(self._outputs):
            os.close(number)
        self._outputs.clear()

    def _drain(self, number: int) -> None:
        piece = os.read(number, _PIECE)
        if not piece:
            os.close(number)
            del self._outputs[number]
            return
        self._outputs[number] += piece
        if len(self._outputs[number]) > self._max_bytes:
            raise TooMuchOutputError


def _input_file(given: bytes) -> int:
    """Return a descriptor of a file of its own, as of a redirection, which nobody can change.

    Some programs ask for the size of their input, or map it into memory: a pipe has no size.
    """
    if not hasattr(os, "memfd_create"):  # macOS
        with tempfile.TemporaryFile() as file:
            file.write(given)
            file.seek(0)
            return os.dup(file.fileno())
    number = os.memfd_create("input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(number, "wb", closefd=False) as file:
        file.write(given)
    os.lseek(number, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
    fcntl.fcntl(number, fcntl.F_ADD_SEALS, seals)
    return number
