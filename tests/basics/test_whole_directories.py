"""Directories are whole or not there, and what was lost or changed in one is named."""

import errno
import hashlib
import json
import os

import pytest

from prefix_rft_rllib.basics import whole_directories
from prefix_rft_rllib.basics.whole_directories import (
    DamagedDirectoryError,
    checked,
    put_back,
    remove_directory,
    remove_remains,
    written_whole,
)

ABOUT = {"iteration": 3}


def never(path) -> bool:
    return False


def always(path) -> bool:
    return True


def write(path, about=ABOUT, **files: bytes) -> None:
    with written_whole(path, about, always) as place:
        (place / "part").mkdir()
        for name, data in ({"a": b"one", "b": b"two"} | files).items():
            (place / "part" / name).write_bytes(data)


def with_files(path, files) -> None:
    """Write a manifest by hand."""
    text = json.dumps({"format": 1, "about": ABOUT, "files": files})
    (path / "manifest.json").write_text(text)


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "folder" / "whole"
    write(path)
    return path


def names(path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_the_manifest_lists_all_files_with_sizes_and_checksums(directory):
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest == {
        "format": 1,
        "about": ABOUT,
        "files": {
            f"part/{name}": {"size": 3, "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in (("a", b"one"), ("b", b"two"))
        },
    }
    assert checked(directory) == ABOUT
    assert names(directory.parent) == ["whole"]


def test_every_file_and_folder_is_flushed_to_the_disk(tmp_path, monkeypatch):
    flushed, fsync = set(), os.fsync

    def noted(descriptor: int) -> None:
        flushed.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write(tmp_path / "whole")
    place = f"{tmp_path}/.whole.unfinished"
    inside = {f"{place}/{n}" for n in ("manifest.json", "part", "part/a", "part/b")}
    assert flushed == {str(tmp_path), place, *inside}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "part/a").unlink(), "part/a is missing"),
        (lambda d: (d / "part/a").write_bytes(b"on"), "part/a has 2 bytes instead of 3"),
        (lambda d: (d / "part/b").write_bytes(b"Two"), "part/b has changed (another checksum)"),
        (lambda d: (d / "manifest.json").write_text('{"format": 1'), "manifest.json is (JSON"),
        (lambda d: (d / "manifest.json").write_text("[]"), "manifest.json is (TypeError"),
        (lambda d: (d / "manifest.json").write_bytes(b"\xff"), "manifest.json is (UnicodeDecode"),
        (lambda d: (d / "manifest.json").write_text("[" * 100_000), "manifest.json is (Recursion"),
        (lambda d: with_files(d, {"part/a": None}), "manifest.json is (TypeError"),
        (lambda d: with_files(d, {"part/a": {"size": 3}}), "manifest.json is (KeyError('sha256'"),
        (lambda d: with_files(d, None), "manifest.json is (TypeError"),
        (
            lambda d: (d / "manifest.json").write_text('{"format": 2, "about": {}, "files": {}}'),
            "has the format 2, known is 1",
        ),
    ],
)
def test_what_is_wrong_is_named(directory, spoil, message):
    assert checked(directory) == ABOUT  # known now; the change must be seen all the same
    spoil(directory)
    with pytest.raises(DamagedDirectoryError) as caught:
        checked(directory)
    assert message in str(caught.value)
    assert str(directory) in str(caught.value)


def test_a_part_is_checked_by_itself(directory):
    (directory / "part/a").write_bytes(b"ONE")
    assert checked(directory, "part/b") == ABOUT
    assert checked(directory, "par") == ABOUT  # no folder of this name
    for part in ("part/a", "part"):
        with pytest.raises(DamagedDirectoryError, match=r"part/a has changed"):
            checked(directory, part)


def test_untouched_files_are_read_once(directory, monkeypatch):
    read, checksum = [], whole_directories._checksum
    monkeypatch.setattr(
        whole_directories, "_checksum", lambda path: read.append(path.name) or checksum(path)
    )
    for _ in range(3):
        checked(directory)
    assert sorted(read) == ["a", "b"]


def test_a_directory_without_manifest_cannot_be_checked_and_a_missing_one_is_an_error(tmp_path):
    assert checked(tmp_path) is None
    with pytest.raises(FileNotFoundError, match=r"no directory .*nowhere"):
        checked(tmp_path / "nowhere")


def test_a_file_that_cannot_be_read_is_a_damage(directory, monkeypatch):
    def broken(path) -> str:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(whole_directories, "_checksum", broken)
    with pytest.raises(DamagedDirectoryError, match=r"whole cannot be read: .*Input/output error"):
        checked(directory)


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(directory, tmp_path):
    link = tmp_path / "latest"
    link.symlink_to(directory)
    for about in ({"iteration": 4}, {"iteration": 5}):
        write(link, about)
        assert link.is_symlink()
        assert checked(link) == checked(directory) == about
    assert names(directory.parent) == ["whole"]
    missing = tmp_path / "missing"
    missing.symlink_to(directory.parent / "new")
    write(missing)
    assert checked(directory.parent / "new") == ABOUT
    assert names(tmp_path) == ["folder", "latest", "missing"]


def test_a_write_that_fails_leaves_the_earlier_one(directory):
    with pytest.raises(IsADirectoryError):
        write(directory, {}, **{"../part": b"cannot be written"})
    assert checked(directory) == ABOUT
    assert names(directory.parent) == ["whole"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(12))
def test_a_process_killed_at_any_step_leaves_the_old_or_the_new_one(directory, monkeypatch, step):
    """Every call that changes the file system is a step; at the killed one all ends."""
    calls = []

    def stops_at(function):
        def called(*args, **kwargs):
            calls.append(function)
            if len(calls) > step:
                raise Killed
            return function(*args, **kwargs)

        return called

    with monkeypatch.context() as patch:
        for owner, name in (
            (whole_directories.Path, "mkdir"),
            (whole_directories.Path, "rename"),
            (whole_directories.Path, "write_text"),
            (whole_directories.shutil, "rmtree"),
            (whole_directories.os, "fsync"),
        ):
            patch.setattr(owner, name, stops_at(getattr(owner, name)))
        try:
            write(directory, {"iteration": 4}, a=b"new")
            is_done = True
        except Killed:
            is_done = False
    put_back(directory.parent)
    about = checked(directory)
    assert about == {"iteration": 4} if is_done else about in (ABOUT, {"iteration": 4})
    write(directory, {"iteration": 5})
    assert checked(directory) == {"iteration": 5}
    remove_remains(directory.parent)
    assert names(directory.parent) == ["whole"]


def test_a_directory_set_aside_for_one_that_never_came_is_put_back(directory):
    directory.rename(directory.with_name(".whole.replaced"))
    assert checked(directory) == ABOUT


def test_other_files_are_never_replaced(directory, tmp_path):
    for path in (directory, directory / "part" / "a"):
        with (
            pytest.raises(ValueError, match=r"is there, and is nothing that may be replaced"),
            written_whole(path, {}, never),
        ):
            raise AssertionError("nothing is written")
    (tmp_path / "empty").mkdir()
    with written_whole(tmp_path / "empty", ABOUT, never) as place:
        (place / "a").touch()
    assert checked(tmp_path / "empty") == ABOUT


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "inside", whole_directories.Path("/proc/no/where")):
        with (
            pytest.raises(ValueError, match=r"cannot be written: .*beside its place"),
            written_whole(path, {}, never),
        ):
            raise AssertionError("nothing is written")


def test_removing_leaves_nothing_under_the_name_however_it_ends(directory, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(whole_directories.shutil, "rmtree", lambda *args, **kwargs: None)
        remove_directory(directory)  # killed before its files were removed
    assert names(directory.parent) == [".whole.removed"]
    write(directory)
    remove_remains(directory.parent)
    assert names(directory.parent) == ["whole"]
