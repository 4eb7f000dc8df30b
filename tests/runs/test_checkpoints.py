"""Checkpoints in a run directory: which are found, which stay, what one must hold."""

import logging
from pathlib import Path

import pytest

from prefix_rft_rllib.basics import whole_directories
from prefix_rft_rllib.basics.whole_directories import DamagedDirectoryError, written_whole
from prefix_rft_rllib.runs.checkpoints import (
    PARTS,
    check_checkpoint,
    checkpoint_path,
    checkpoints_of,
    is_checkpoint,
    newest_checkpoint,
    remove_old_checkpoints,
    versions,
)


def about(iteration: int) -> dict:
    return {"iteration": iteration, "versions": {}, "fingerprint": {}}


def write(run_dir: Path, iteration: int, ending: str = ".pkl") -> Path:
    path = checkpoint_path(run_dir, iteration)
    with written_whole(path, about(iteration), is_checkpoint) as place:
        for name in PARTS:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / f"{name}{ending}").write_text(f"{name} {iteration}")
    return path


def test_names_of_checkpoints_sort_by_iteration(tmp_path):
    assert checkpoint_path(tmp_path, 10) == tmp_path / "checkpoints" / "iteration_000010"
    assert checkpoints_of(tmp_path) == {}
    paths = {iteration: write(tmp_path, iteration) for iteration in (1000000, 2, 10)}
    assert checkpoints_of(tmp_path) == paths
    assert [*checkpoints_of(tmp_path)] == [2, 10, 1000000]


def test_what_else_lies_beside_checkpoints_is_left_alone(tmp_path):
    paths = {iteration: write(tmp_path, iteration) for iteration in (1, 2, 3)}
    folder = tmp_path / "checkpoints"
    others = ("iteration_000003.bak", "iteration_000002 (copy)", "iteration_1_0", "iteration_-1")
    for name in others:
        (folder / name).mkdir()
    (folder / "iteration_000009").write_text("a file")
    assert checkpoints_of(tmp_path) == paths
    assert newest_checkpoint(tmp_path) == paths[3]
    remove_old_checkpoints(tmp_path, keep_last=1, keep_every=None)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        (*others, "iteration_000003", "iteration_000009")
    )


@pytest.mark.parametrize("wrong", [{}, {"versions": None, "fingerprint": {}}, {"versions": {}}])
def test_a_checkpoint_whose_manifest_says_no_origin_is_damaged(tmp_path, wrong):
    with written_whole(checkpoint_path(tmp_path, 2), wrong, is_checkpoint) as place:
        for name in PARTS:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / f"{name}.pkl").write_text(name)
    with pytest.raises(DamagedDirectoryError, match="does not say from which data and settings"):
        check_checkpoint(checkpoint_path(tmp_path, 2))
    assert newest_checkpoint(write(tmp_path, 1).parents[1]) == checkpoint_path(tmp_path, 1)


@pytest.mark.parametrize("ending", [".pkl", ".msgpack"])
def test_a_checkpoint_lacks_no_part(tmp_path, ending, caplog):
    path = write(tmp_path, 1, ending)
    assert check_checkpoint(path) == about(1)
    assert not caplog.messages
    (path / "manifest.json").unlink()
    assert check_checkpoint(path) is None
    assert "has no manifest.json: it was written by a version without checksums" in caplog.text
    for part in PARTS:
        text = (path / f"{part}{ending}").read_text()
        (path / f"{part}{ending}").unlink()
        with pytest.raises(DamagedDirectoryError, match=f"no whole checkpoint: {part}"):
            check_checkpoint(path)
        (path / f"{part}{ending}").write_text(text)


def test_the_newest_whole_checkpoint_is_found_and_damaged_ones_are_named(tmp_path, caplog):
    assert newest_checkpoint(tmp_path) is None
    paths = [write(tmp_path, iteration) for iteration in (1, 2, 3)]
    assert newest_checkpoint(tmp_path) == paths[2]
    assert not caplog.messages
    with caplog.at_level(logging.WARNING):
        (paths[2] / f"{PARTS[1]}.pkl").write_text("")
        assert newest_checkpoint(tmp_path) == paths[1]
    assert f"{paths[2]} is damaged: {PARTS[1]}.pkl has 0 bytes instead of" in caplog.text
    (paths[1] / f"{PARTS[2]}.pkl").unlink()
    assert newest_checkpoint(tmp_path) == paths[0]
    (paths[0] / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"No checkpoint in .* is whole: .*000003.*000002.*000001"):
        newest_checkpoint(tmp_path)


def test_what_a_killed_save_left_is_no_checkpoint_and_goes_with_the_next(tmp_path):
    paths = [write(tmp_path, iteration) for iteration in (1, 2)]
    unfinished = paths[0].with_name(".iteration_000003.unfinished")
    unfinished.mkdir()
    paths[1].rename(paths[1].with_name(".iteration_000002.replaced"))
    assert newest_checkpoint(tmp_path) == paths[1]
    remove_old_checkpoints(tmp_path, keep_last=2, keep_every=None)
    assert sorted((tmp_path / "checkpoints").iterdir()) == paths


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "kept"),
    [
        (1, None, [12]),
        (2, None, [10, 12]),
        (9, None, [2, 4, 6, 8, 10, 12]),
        (1, 4, [4, 8, 12]),
        (2, 6, [6, 10, 12]),
    ],
)
def test_the_newest_stay_and_every_so_many(tmp_path, keep_last, keep_every, kept):
    for iteration in range(2, 13, 2):
        write(tmp_path, iteration)
        remove_old_checkpoints(tmp_path, keep_last=keep_last, keep_every=keep_every)
        assert newest_checkpoint(tmp_path) == checkpoint_path(tmp_path, iteration)
    assert [*checkpoints_of(tmp_path)] == kept


def test_versions_of_what_decides_numbers_are_known():
    found = versions()
    assert [*found] == ["prefix_rft_rllib", "ray", "torch", "transformers"]
    assert all(version[0].isdecimal() for version in list(found.values())[1:])


def test_a_checkpoint_that_cannot_be_removed_ends_no_run(tmp_path, monkeypatch, caplog):
    for iteration in (1, 2, 3):
        write(tmp_path, iteration)

    def busy(path, *args, **kwargs):
        if path.exists():
            raise OSError(f"{path} is busy")

    with monkeypatch.context() as patch:
        patch.setattr(whole_directories.shutil, "rmtree", busy)
        remove_old_checkpoints(tmp_path, keep_last=1, keep_every=None)
    assert "Old checkpoints could not be removed" in caplog.text
    assert newest_checkpoint(tmp_path) == checkpoint_path(tmp_path, 3)
    remove_old_checkpoints(tmp_path, keep_last=1, keep_every=None)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["iteration_000003"]
