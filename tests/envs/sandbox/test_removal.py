"""What an attempt leaves is removed, however deep and however much."""

import os
import time

from prefix_rft_rllib.envs.sandbox.removal import discard


def nested(directory, depth):
    directory.mkdir()
    here = os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_deep_and_locked_directories_and_links_are_removed(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("1")
    nested(tmp_path / "deep", 3000)
    (tmp_path / "wide").mkdir()
    for i in range(200):
        (tmp_path / "wide" / str(i)).write_text("1")
    (tmp_path / "wide" / "link").symlink_to(kept)
    (tmp_path / "wide" / "locked").mkdir()
    (tmp_path / "wide" / "locked" / "inner").mkdir(mode=0)
    (tmp_path / "wide" / "locked").chmod(0)
    (tmp_path / "empty").mkdir()
    discard(str(tmp_path / name) for name in ("deep", "wide", "empty", "missing"))
    assert not {"deep", "wide", "empty"} & set(os.listdir(tmp_path))
    assert wait_until(lambda: os.listdir(tmp_path) == ["kept"])
    assert (kept / "file").read_text() == "1"


def test_what_takes_long_is_out_of_reach_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("prefix_rft_rllib.envs.sandbox.removal._PATIENCE_S", 0.0)
    directory = tmp_path / "many"
    directory.mkdir()
    for i in range(2000):
        (directory / str(i)).touch()
    discard([str(directory)])
    assert not directory.exists()
    (left,) = tmp_path.iterdir()
    assert left.stat().st_mode & 0o777 == 0o700
    assert wait_until(lambda: not left.exists())
