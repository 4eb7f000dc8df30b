"""The few kernel calls that the standard library lacks. Importable everywhere."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import sys
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MS_NOATIME, MS_NODIRATIME, MS_RELATIME = 1024, 2048, 1 << 21
MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_CHILD_SUBREAPER = 36
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPABILITY_VERSION = 0x20080522

IS_LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None, use_errno=True) if IS_LINUX else None


def call(name: str, *arguments: object) -> int:
    """Call a function of the C library.

    Raises:
        OSError: If it reports an error, or does not exist here.
    """
    function = getattr(_libc, name, None)
    if function is None:
        raise OSError(f"{name} does not exist on {sys.platform}")
    converted = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    result = int(function(*converted))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def call_number(number: int, *arguments: object) -> int:
    """Call the kernel by a number, where the C library has no name for it.

    Raises:
        OSError: If it reports an error.
    """
    return call("syscall", number, *arguments)


def unshare(flags: int) -> None:
    """Give this process new namespaces."""
    call("unshare", flags)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Attach a file system to the tree; the arguments are those of the kernel."""
    call("mount", source.encode(), target.encode(), kind.encode(), flags, options.encode())


def unmount(target: str) -> None:
    """Take a mount out of the tree at once; it ends when nobody uses it."""
    call("umount2", target.encode(), MNT_DETACH)


def pivot_root(new_root: str, old_root: str) -> None:
    """Make a mount the root and put the old root below it."""
    number = _PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(f"pivot_root's number is not known for {platform.machine()}")
    call_number(number, new_root.encode(), old_root.encode())


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    call("prctl", _PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def refuse_inspection() -> None:
    """Let no process of the same user trace this one or read its memory."""
    call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def give_up_privileges() -> None:
    """Drop every capability for good; nothing run from here on can gain any."""
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()
    call("capset", ctypes.byref(header), ctypes.byref(sets))


def become_user(user_id: int) -> None:
    """Turn a root process into an unprivileged one, for good.

    Raises:
        OSError: If the kernel refuses; the process must not go on then.
    """
    if user_id < 1000:
        raise OSError(f"user id {user_id} is not one of an unprivileged user")
    os.setgroups([])
    os.setresgid(user_id, user_id, user_id)
    os.setresuid(user_id, user_id, user_id)
    if os.getresuid() != (user_id,) * 3 or os.getresgid() != (user_id,) * 3:
        raise OSError("the user id did not change")


def limit_resource(name: str, soft: int, hard: int | None = None) -> None:
    """Set one resource limit, never above what is in force; unknown names are skipped."""
    number = getattr(resource, name, None)
    if number is None:
        return
    ceiling = resource.getrlimit(number)[1]
    hard = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft = min(soft, ceiling)
        hard = ceiling if hard == resource.RLIM_INFINITY else min(hard, ceiling)
    resource.setrlimit(number, (soft, hard))


def close_all_but(*kept: int) -> None:
    """Close every descriptor of this process except the given ones."""
    low = 0
    for descriptor in sorted(kept):
        if descriptor > low:  # closerange(0, 0) would close everything.
            os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, max(low, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 2**20)))


def num_processes_of(user_id: int) -> int:
    """Count the processes and threads of a user that can be seen in /proc."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        if status["Uid"].split()[0] == str(user_id):
            count += int(status["Threads"])
    return count
