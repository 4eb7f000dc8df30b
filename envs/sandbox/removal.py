"""Removing what an attempt left in directories, however much it is and however deep."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import Iterable

from prefix_rft_rllib.envs.sandbox import linux

_PATIENCE_S = 0.2
_AT_ONCE = 10_000


def discard(directories: Iterable[str]) -> None:
    """Remove directories that no living process uses.

    When this returns they are gone, or at least where nobody but this user can reach them: what
    takes longer than a moment is removed by a process of its own, which outlives this one.
    """
    bins = [found for found in map(_put_away, directories) if found is not None]
    if not bins:
        return
    child = os.fork()
    if child == 0:
        try:
            linux.close_all_but()
            for path in bins:
                with contextlib.suppress(OSError):
                    empty_bin(path)
        finally:
            os._exit(0)
    end = time.monotonic() + _PATIENCE_S
    while not os.waitpid(child, os.WNOHANG)[0] and time.monotonic() < end:
        time.sleep(0.001)


def _put_away(directory: str) -> str | None:
    """Move a directory into a new one of this user's; None if nothing is left to remove."""
    try:
        os.rmdir(directory)
        return None
    except FileNotFoundError:
        return None
    except OSError:
        pass  # It is not empty.
    try:
        path = tempfile.mkdtemp(prefix="prefix_rft_removed_", dir=os.path.dirname(directory))
        os.chmod(directory, 0o700)
        os.rename(directory, f"{path}/0")
    except OSError:
        return None
    return path


def empty_bin(path: str) -> None:
    """Remove a directory of directories without recursion.

    Directories below are moved up here before they are looked into, so that no path is ever
    long and no more than one directory is open.
    """
    numbers = itertools.count(1)
    waiting = [entry.path for entry in os.scandir(path)]
    while waiting:
        directory = waiting.pop()
        while entries := _some_entries(directory):
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    waiting.append(f"{path}/{next(numbers)}")
                    os.rename(entry.path, waiting[-1])
                else:
                    os.unlink(entry.path)
        os.rmdir(directory)
    os.rmdir(path)


def _some_entries(directory: str) -> list[os.DirEntry[str]]:
    """Read some entries before they are removed: removing while reading may skip others."""
    with os.scandir(directory) as entries:
        return list(itertools.islice(entries, _AT_ONCE))
