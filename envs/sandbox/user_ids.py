"""Unprivileged user ids for attempts, and the end of everything that runs under them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from prefix_rft_rllib.envs.sandbox import linux
from prefix_rft_rllib.envs.sandbox.removal import discard

FIRST_USER_ID = 50_000
"""Default of the first id; ids with an account of their own are skipped."""

NUM_CLAIMS = 2048
_SHARED_DIRECTORIES = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock")
_IPC_RMID = 0


@dataclass
class UserIds:
    """Three ids that nobody else on this machine uses as long as `lock` is open.

    Attributes:
        attempt: Of the processes that run model-written code.
        judge: Of the process that runs the tests.
        sweeper: Of the process that ends the attempt's.
        lock: Holds the claim; the kernel drops it when the process ends.
    """

    attempt: int
    judge: int
    sweeper: int
    lock: socket.socket

    @classmethod
    def claim(cls, first: int) -> UserIds:
        """Claim three free ids, the lowest first.

        Args:
            first: Where to start, at least 1000.

        Returns:
            The ids.

        Raises:
            OSError: If all are in use.
        """
        for number in range(NUM_CLAIMS):
            ids = range(first + 3 * number, first + 3 * number + 3)
            if any(map(_has_account, ids)):
                continue
            lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                # A name in the abstract namespace: no file, and it ends with its process.
                lock.bind(f"\0prefix_rft_sandbox_user_{ids[0]}")
            except OSError:
                lock.close()
                continue
            return cls(ids[0], ids[1], ids[2], lock)
        raise OSError(f"all user ids from {first} to {first + 3 * NUM_CLAIMS} are in use")

    def end_processes(self, seconds: float = 2.0) -> bool:
        """Kill what runs under the attempt's id, and release the ids of this process's children.

        Args:
            seconds: How long the killed processes may take to end.

        Returns:
            False if this process still has children then.
        """
        deadline = time.monotonic() + seconds
        while True:
            child = os.fork()
            if child == 0:
                _kill_all_of(self.attempt, self.sweeper)
            os.waitpid(child, 0)
            if not reap_children():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)

    def remove_traces(self) -> None:
        """Remove what the attempt left where everybody may write: files and shared memory."""
        directories = []
        for shared in {*_SHARED_DIRECTORIES, tempfile.gettempdir()}:
            with contextlib.suppress(OSError):
                for entry in list(os.scandir(shared)):
                    with contextlib.suppress(OSError):
                        if entry.stat(follow_symlinks=False).st_uid != self.attempt:
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            directories.append(entry.path)
                        else:
                            os.unlink(entry.path)
        discard(directories)
        self._remove_shared_memory()

    def _remove_shared_memory(self) -> None:
        for name, function, extra in (
            ("shm", "shmctl", (_IPC_RMID, ctypes.c_void_p())),
            ("msg", "msgctl", (_IPC_RMID, ctypes.c_void_p())),
            ("sem", "semctl", (0, _IPC_RMID)),
        ):
            try:
                header, *lines = Path(f"/proc/sysvipc/{name}").read_text().splitlines()
            except (OSError, ValueError):
                continue
            place = header.split().index("cuid")  # The maker; an owner may name another one.
            for line in lines:
                words = line.split()
                if int(words[place]) == self.attempt:
                    try:
                        linux.call(function, int(words[1]), *extra)
                    except OSError:
                        continue


def _has_account(user_id: int) -> bool:
    try:
        pwd.getpwuid(user_id)
    except KeyError:
        return False
    return True


def _kill_all_of(attempt: int, sweeper: int) -> None:
    """In a child of root: kill all processes of an id at one blow; never returns.

    Its real and saved id is another, so that no attempt may signal it first; the kernel
    signals all processes in one step, so that none can fork past it.
    """
    try:
        os.setgroups([])
        os.setresgid(sweeper, sweeper, sweeper)
        os.setresuid(sweeper, attempt, sweeper)
        # As root, kill(-1) would end the machine.
        if os.getresuid() == (sweeper, attempt, sweeper) and min(attempt, sweeper) >= 1000:
            os.kill(-1, signal.SIGKILL)
    finally:
        os._exit(0)


def reap_children() -> bool:
    """Release the ids of children that have ended; return whether others are left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True
