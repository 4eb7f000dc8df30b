"""Directories of files that are whole or not there: written beside their place, then renamed.

A manifest lists the files with sizes and checksums, so that what was lost or changed is found.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from prefix_rft_rllib.basics.text import first_of

MANIFEST_FILE = "manifest.json"
FORMAT = 1
NUM_THREADS = 4
"""Files whose checksums are computed at the same time."""

_UNFINISHED, _REPLACED, _REMOVED = "unfinished", "replaced", "removed"


class DamagedDirectoryError(ValueError):
    """Files of a directory are missing, or not what its manifest says."""


class _Entry(NamedTuple):
    """What a manifest has of a file."""

    size: int
    sha256: str


class _State(NamedTuple):
    """What of a file changes whenever it is written."""

    name: str
    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, directory: Path, name: str) -> _State:
        status = (directory / name).stat()
        return cls(name, status.st_size, status.st_mtime_ns, status.st_ino)


@contextlib.contextmanager
def written_whole(
    path: Path, about: Mapping[str, Any], is_replaceable: Callable[[Path], bool]
) -> Iterator[Path]:
    """Write a directory: all of it, on disk, or nothing.

    Every file is read again for its checksum and flushed to the disk.

    Args:
        path: Its place, or a link to it. What is there stays until the new one is complete.
        about: Plain data for the manifest.
        is_replaceable: Whether a directory that is there, and not empty, may be replaced.

    Yields:
        The directory to write into: a sibling of the place.

    Raises:
        ValueError: If the place is taken or cannot be written.
    """
    if path.is_symlink():
        path = path.resolve()  # the link stays, and what it leads to is replaced
    _put_back(path)
    if path.exists() and not (path.is_dir() and (not any(path.iterdir()) or is_replaceable(path))):
        raise ValueError(
            f"{path} is there, and is nothing that may be replaced: other files would be lost. "
            "Give a path of its own."
        )
    unfinished = _beside(path, _UNFINISHED)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written: {error}. It is written as {unfinished.name!r} beside its "
            "place and then renamed. Give a path in a directory that this user may write."
        ) from error
    try:
        yield unfinished
        _write_manifest(unfinished, about)
        _put(unfinished, path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def checked(path: Path, part: str = "") -> dict[str, Any] | None:
    """Compare a directory with its manifest.

    Files that have not been touched since they were compared in this process are not read again.

    Args:
        path: The directory.
        part: Compare this file, or the files of this folder, alone.

    Returns:
        What the manifest says about the directory; None without a manifest.

    Raises:
        DamagedDirectoryError: Naming what is missing, shorter or longer, changed, or cannot be
            read.
        FileNotFoundError: If there is no such directory.
    """
    _put_back(path)
    if not path.is_dir():
        raise FileNotFoundError(f"There is no directory {path}.")
    manifest = path / MANIFEST_FILE
    if not manifest.is_file():
        return None
    try:
        about, files = _read_manifest(manifest)
        wanted = {name: entry for name, entry in files.items() if _is_in(name, part)}
        wrong = [*_lost(path, wanted)] or [*_changed(path, wanted)]
    except OSError as error:
        raise DamagedDirectoryError(f"{path} cannot be read: {error}.") from error
    if wrong:
        raise DamagedDirectoryError(f"{path} is damaged: {first_of(wrong, 3, '; ')}.")
    return about


def put_back(folder: Path) -> None:
    """Put directories of a folder back that were set aside for new ones which never came."""
    for replaced in folder.glob(f".*.{_REPLACED}"):
        _put_back(folder / replaced.name.removeprefix(".").removesuffix(f".{_REPLACED}"))


def remove_directory(path: Path) -> None:
    """Remove a directory; a killed process leaves the whole one, or none under this name."""
    removed = _beside(path, _REMOVED)
    shutil.rmtree(removed, ignore_errors=True)
    path.rename(removed)
    shutil.rmtree(removed)


def remove_remains(folder: Path) -> None:
    """Remove what killed processes have left of the directories in a folder."""
    put_back(folder)
    for ending in (_UNFINISHED, _REMOVED, _REPLACED):
        for path in folder.glob(f".*.{ending}"):
            shutil.rmtree(path)


def _read_manifest(manifest: Path) -> tuple[dict[str, Any], dict[str, _Entry]]:
    """What a manifest says about its directory, and size and checksum by name of a file."""
    try:
        read = json.loads(manifest.read_bytes())
        about, files, format_ = dict(read["about"]), dict(read["files"]), read["format"]
        entries = {
            name: _Entry(int(entry["size"]), str(entry["sha256"])) for name, entry in files.items()
        }
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DamagedDirectoryError(
            f"{manifest.parent} is damaged: {MANIFEST_FILE} is ({error!r})."
        ) from error
    if format_ != FORMAT:
        raise DamagedDirectoryError(f"{manifest} has the format {format_!r}, known is {FORMAT}.")
    return about, entries


def _is_in(name: str, part: str) -> bool:
    return not part or name == part or name.startswith(f"{part}/")


def _lost(directory: Path, files: Mapping[str, _Entry]) -> Iterator[str]:
    """Say which files are missing or of another size."""
    for name, entry in files.items():
        file = directory / name
        if not file.is_file():
            yield f"{name} is missing"
        elif file.stat().st_size != entry.size:
            yield f"{name} has {file.stat().st_size} bytes instead of {entry.size}"


def _changed(directory: Path, files: Mapping[str, _Entry]) -> Iterator[str]:
    """Say which files have other contents."""
    sums = _checksums(directory, tuple(_State.of(directory, name) for name in files))
    for name, entry in files.items():
        if sums[name] != entry.sha256:
            yield f"{name} has changed (another checksum)"


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{ending}")


def _put_back(path: Path) -> None:
    """Put a directory back that was set aside for a new one which never came."""
    replaced = _beside(path, _REPLACED)
    if replaced.is_dir() and not path.exists():
        replaced.rename(path)


def _put(unfinished: Path, path: Path) -> None:
    """Give a directory its name; one of that name that is not empty is removed."""
    if path.exists() and any(path.iterdir()):
        replaced = _beside(path, _REPLACED)
        shutil.rmtree(replaced, ignore_errors=True)
        path.rename(replaced)
        unfinished.rename(path)
        shutil.rmtree(replaced)
    else:
        unfinished.rename(path)  # also in the place of an empty directory
    _flush(path.parent)


def _write_manifest(directory: Path, about: Mapping[str, Any]) -> None:
    """List all files, and see that everything is on the disk."""
    paths = sorted(directory.rglob("*"))
    names = [path.relative_to(directory).as_posix() for path in paths if path.is_file()]
    states = tuple(_State.of(directory, name) for name in names)
    sums = _checksums(directory, states)
    files = {state.name: {"size": state.size, "sha256": sums[state.name]} for state in states}
    manifest = directory / MANIFEST_FILE
    text = json.dumps({"format": FORMAT, "about": dict(about), "files": files}, indent=2)
    manifest.write_text(f"{text}\n")
    for path in (*paths, manifest, directory):
        _flush(path)


@lru_cache(maxsize=8)
def _checksums(directory: Path, states: tuple[_State, ...]) -> dict[str, str]:
    """SHA-256 by name; the states of the files tell whether they are known."""
    names = [state.name for state in states]
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        return dict(zip(names, threads.map(_checksum, (directory / n for n in names)), strict=True))


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """See that a file, or the list of a directory's names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
