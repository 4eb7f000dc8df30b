"""The keeper: parent of an attempt's processes, and the first one of its namespaces.

Forked before the job is known, so that nothing of the tests is in its memory or in that of the
attempts that it forks. It starts one program after the other on request, and after each kills
what that one left behind. With namespaces it is process 1: whatever is in them ends with it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import time
from pathlib import Path

from prefix_rft_rllib.envs.sandbox import linux
from prefix_rft_rllib.envs.sandbox.attempt_main import Streams, run_attempt
from prefix_rft_rllib.envs.sandbox.attempt_setting import AttemptSetting
from prefix_rft_rllib.envs.sandbox.isolation import enter_room, separate_processes
from prefix_rft_rllib.envs.sandbox.user_ids import UserIds, reap_children

SETUP_FAILED = -1
"""Instead of an exit status: the program could not be made an attempt, nothing of it ran."""

_STATUS = struct.Struct("<i")
_READY = 2**30


class Keeper:
    """The keeper as its worker sees it.

    Args:
        setting: What its attempts get.

    Raises:
        OSError: If it cannot be started; nothing is left over then.
    """

    def __init__(self, setting: AttemptSetting):
        self._setting = setting
        self._control, theirs = socket.socketpair()
        if setting.level == "namespaces":
            separate_processes()
        else:
            with contextlib.suppress(OSError):
                linux.adopt_orphans()
        self._process_id = os.fork()
        if self._process_id == 0:
            _keeper_process(theirs, setting)
        theirs.close()
        answer = self.receive_exit(wait=True)
        if answer != _READY:
            self.end()
            raise OSError(
                "the keeper of the attempt's processes did not start: "
                + ("it was killed" if answer is None else os.strerror(answer))
            )

    def fileno(self) -> int:
        """Return a descriptor that is readable when a program has ended."""
        return self._control.fileno()

    def launch(self, streams: Streams) -> None:
        """Start a program; its first message on `streams.link` says which."""
        try:
            socket.send_fds(self._control, [b"S"], list(streams.descriptors()))
        except OSError as error:
            raise OSError(f"the keeper is gone: {error}") from error

    def receive_exit(self, wait: bool = False) -> int | None:
        """Return the exit status of a program that ended.

        Returns:
            As of `os.wait`, or `SETUP_FAILED`; None if the keeper has gone.
        """
        if not wait and not select.select([self._control], [], [], 0)[0]:
            return None
        try:
            data = self._control.recv(_STATUS.size)
        except OSError:
            return None
        return int(_STATUS.unpack(data)[0]) if len(data) == _STATUS.size else None

    def end(self) -> bool:
        """Kill the keeper, the attempt, and everything the attempt started.

        Returns:
            False if processes were left over.
        """
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process_id, signal.SIGKILL)
        os.waitpid(self._process_id, 0)
        self._control.close()
        if self._setting.level == "namespaces":
            return True
        return end_all(self._setting.users)


def end_all(users: UserIds | None) -> bool:
    """Kill all processes of the attempt's user, or without one all descendants of this process."""
    if users is not None:
        return users.end_processes()
    for _ in range(1000):
        for process_id in _descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
        if not reap_children():
            return True
        time.sleep(0.001)
    return False


def _descendants(ancestor: int) -> list[int]:
    """Process ids below one process, as far as /proc tells (nothing where there is none)."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = {ancestor}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {ancestor})


def _keeper_process(control: socket.socket, setting: AttemptSetting) -> None:
    """Serve launch requests until the worker is gone; never returns."""
    exit_code = 1
    try:
        linux.close_all_but(control.fileno())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if setting.level == "namespaces":
            enter_room(setting.package_paths(), setting.limits.file_bytes)
        if linux.IS_LINUX:
            linux.refuse_inspection()
            linux.die_with_parent()
            if setting.level == "none":
                linux.adopt_orphans()
        control.sendall(_STATUS.pack(_READY))
        while True:
            request, descriptors, _, _ = socket.recv_fds(control, 1, len(Streams.NAMES))
            if not request:
                break
            control.sendall(_STATUS.pack(_run_program(Streams(*descriptors), setting)))
        exit_code = 0
    except OSError as error:
        with contextlib.suppress(OSError):
            control.sendall(_STATUS.pack(error.errno or 0))
    finally:
        os._exit(exit_code)


def _run_program(streams: Streams, setting: AttemptSetting) -> int:
    """Run one program to its end, then kill what it left; return its exit status."""
    is_ready, ready = os.pipe()
    process_id = os.fork()
    if process_id == 0:
        run_attempt(streams, ready, setting)
    for descriptor in (*streams.descriptors(), ready):
        os.close(descriptor)
    while True:
        # Orphans come here too; only the program's own end counts.
        ended, status = os.waitpid(-1, 0)
        if ended == process_id:
            break
    if setting.level == "namespaces":
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
    else:
        end_all(setting.users)
    # No exit code could say this: the attempt may choose any.
    has_run = os.read(is_ready, 1) != b""
    os.close(is_ready)
    return status if has_run else SETUP_FAILED
