"""Namespaces: what an attempt can see of the machine, and what of it is its own."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from prefix_rft_rllib.envs.sandbox import linux

LEVELS = ("namespaces", "none")
"""Strongest first."""

DEVICES = tuple(f"/dev/{name}" for name in ("null", "zero", "random", "urandom"))
"""What an attempt may read and write beside its files."""

DIRECTORY = "/attempt"
"""Working directory of an isolated attempt."""

_ROOM = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_LOCKED_FLAGS = (
    (os.ST_NOSUID, linux.MS_NOSUID),
    (getattr(os, "ST_NODEV", 4), linux.MS_NODEV),
    (getattr(os, "ST_NOEXEC", 8), linux.MS_NOEXEC),
    (getattr(os, "ST_NOATIME", 1024), linux.MS_NOATIME),
    (getattr(os, "ST_NODIRATIME", 2048), linux.MS_NODIRATIME),
    (getattr(os, "ST_RELATIME", 4096), linux.MS_RELATIME),
)


@functools.cache
def library_paths() -> tuple[str, ...]:
    """Return the machine's libraries and Python's standard library."""
    standard = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    paths = dict.fromkeys([*_LIBRARIES, *standard])
    return tuple(path for path in paths if os.path.exists(path))


@functools.cache
def installed_packages() -> tuple[str, ...]:
    """Return the directories in the library paths that hold installed packages.

    A package may hold anything, the tests and answers of a benchmark too.
    """
    parents = [path for top in _LIBRARIES for path in Path(top).glob("python3*")]
    parents += [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    names = ("site-packages", "dist-packages")
    paths = [os.path.realpath(parent / name) for parent in parents for name in names]
    return tuple(path for path in dict.fromkeys(paths) if os.path.isdir(path))


def separate_processes() -> None:
    """Put the children that this process makes from here on among processes of their own.

    A user other than root needs a user namespace for that; in it the process keeps its id.

    Raises:
        OSError: If the machine does not offer it.
    """
    user_id, group_id = os.getuid(), os.getgid()
    if user_id == 0:
        linux.unshare(linux.CLONE_NEWPID)
        return
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWPID)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user_id} {user_id} 1")
    Path("/proc/self/gid_map").write_text(f"{group_id} {group_id} 1")


def enter_room(package_paths: Sequence[str], temporary_bytes: int) -> None:
    """Leave the machine's files, network and shared memory behind.

    Afterwards the root directory is empty but for libraries, the standard library and
    `package_paths` (read-only), four devices and an empty, writable `DIRECTORY`. There is no
    `/proc`, no `/sys` and no network device.

    Args:
        package_paths: Installed packages that stay visible, at the same place.
        temporary_bytes: Size of `DIRECTORY`; 0 makes it read-only.

    Raises:
        OSError: If the machine does not offer it.
    """
    libraries, packages = library_paths(), installed_packages()
    linux.unshare(_ROOM)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    plain = linux.MS_NOSUID | linux.MS_NODEV
    base = tempfile.gettempdir()
    linux.mount("tmpfs", base, "tmpfs", plain, "size=256k,nr_inodes=512,mode=755")
    os.mkdir(f"{base}/old")
    linux.pivot_root(base, f"{base}/old")
    os.chdir("/")
    for path in libraries:
        _show(path)
    covered = [path for path in packages if os.path.isdir(path)]
    for path in covered:
        linux.mount("tmpfs", path, "tmpfs", plain, "size=64k,nr_inodes=64,mode=755")
    for path in package_paths:
        _show(path)
    for path in covered:
        linux.mount("none", path, "", linux.MS_REMOUNT | linux.MS_RDONLY | plain, "mode=755")
    os.mkdir("/dev")
    for path in DEVICES:
        _show(path, is_device=True)
    linux.unmount("/old")
    os.rmdir("/old")
    os.mkdir(DIRECTORY)
    size = max(temporary_bytes, 4096)
    flags = plain | linux.MS_NOEXEC | (0 if temporary_bytes else linux.MS_RDONLY)
    linux.mount("tmpfs", DIRECTORY, "tmpfs", flags, f"size={size},nr_inodes=1024,mode=1777")
    linux.mount("none", "/", "", linux.MS_REMOUNT | linux.MS_RDONLY | plain, "mode=755")


def _show(path: str, is_device: bool = False) -> None:
    """Bind a path of the old root to its place in the new one, read-only."""
    source = f"/old{path}"
    if os.path.islink(source) and not is_device:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.symlink(os.readlink(source), path)
        return
    try:
        is_directory = os.path.isdir(source)
        flags = os.statvfs(source).f_flag
    except OSError:
        return
    os.makedirs(path if is_directory else os.path.dirname(path), mode=0o755, exist_ok=True)
    if not is_directory:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    linux.mount(source, path, "", linux.MS_BIND | linux.MS_REC)
    change = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | linux.MS_NOSUID
    if not is_device:
        change |= linux.MS_NODEV
    for seen, kept in _LOCKED_FLAGS:
        change |= kept if flags & seen else 0
    linux.mount("none", path, "", change)


def is_offered() -> bool:
    """Try in a child of this process whether attempts can be isolated here."""
    if not linux.IS_LINUX:
        return False
    child = os.fork()
    if child == 0:
        status = 1
        try:
            separate_processes()
            status = _try_room()
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def _try_room() -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            enter_room([], 2**20)
            status = 0 if os.listdir(DIRECTORY) == [] and not os.path.exists("/proc") else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def choose_level(wanted: str) -> str:
    """Return the isolation to use.

    Args:
        wanted: "auto", or one of `LEVELS`.

    Returns:
        One of `LEVELS`.

    Raises:
        RuntimeError: If "namespaces" is asked for and not offered.
    """
    if wanted == "none":
        return "none"
    if is_offered():
        return "namespaces"
    if wanted == "auto":
        return "none"
    raise RuntimeError(f"isolation {wanted!r} is not offered on this machine ({sys.platform})")
