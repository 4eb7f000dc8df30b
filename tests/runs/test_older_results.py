"""What lies in a run directory already: an older run, later checkpoints, another process."""

import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prefix_rft_rllib.runs.checkpoints import checkpoint_path, checkpoints_of
from prefix_rft_rllib.runs.run_directory import RunDirectory, read_metrics
from tests.run_records import files_of, other_writer, scalars_of, write_iterations


def write_run(path: Path, last: int, settings: dict, checkpoints: tuple[int, ...] = ()) -> None:
    run = RunDirectory(path)
    run.write_config(settings)
    write_iterations(run, range(1, last + 1))
    for iteration in checkpoints:
        folder = checkpoint_path(path, iteration)
        folder.mkdir(parents=True)
        (folder / "weights").write_text(f"{settings} {iteration}")
    run.close()


def test_a_new_run_moves_the_older_ones_aside_and_says_so(tmp_path, caplog):
    write_run(tmp_path, 3, {"seed": 0}, checkpoints=(2, 3))
    (tmp_path / "notes.txt").write_text("of the user's own")
    events = [path.name for path in tmp_path.glob("events.*")]
    older = files_of(tmp_path)
    for name in ("notes.txt", ".lock"):
        del older[name]
    with caplog.at_level(logging.WARNING):
        write_run(tmp_path, 2, {"seed": 1}, checkpoints=(1,))
    (message,) = caplog.messages
    assert message.startswith(f"A new run begins in {tmp_path}, which held another one")
    assert f"is now in {tmp_path / 'previous_1'}." in message

    previous = tmp_path / "previous_1"
    assert files_of(previous) == older
    assert [path.name for path in previous.glob("events.*")] == events
    assert sorted(scalars_of(previous)) == [1, 2, 3]
    assert [row["training_iteration"] for row in read_metrics(tmp_path)] == [1, 2]
    assert sorted(scalars_of(tmp_path)) == [1, 2]
    assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 1}
    assert [*checkpoints_of(tmp_path)] == [1]
    assert len(list((tmp_path / "rollouts").iterdir())) == 2
    assert (tmp_path / "notes.txt").exists()

    second = files_of(tmp_path)
    write_run(tmp_path, 1, {"seed": 2})
    moved = files_of(tmp_path / "previous_2")
    assert moved == {name: second[name] for name in moved}
    assert json.loads(moved["config.json"]) == {"seed": 1}
    assert files_of(previous) == older


def test_what_a_run_left_that_was_killed_in_its_first_iteration_is_kept_too(tmp_path):
    run = RunDirectory(tmp_path)
    run.write_minibatches(1, [{"loss": 0.5}])
    run.close()
    write_run(tmp_path, 1, {})
    assert "0.5" in (tmp_path / "previous_1" / "minibatches.jsonl").read_text()


def test_a_restored_run_moves_later_checkpoints_aside(tmp_path, caplog):
    write_run(tmp_path, 6, {}, checkpoints=(2, 4, 6))
    with caplog.at_level(logging.WARNING):
        run = RunDirectory(tmp_path, iteration=2)
        write_iterations(run, range(3, 4))
        run.close()
    assert [*checkpoints_of(tmp_path)] == [2]
    assert [*checkpoints_of(tmp_path / "previous_1")] == [4, 6]
    assert "Checkpoints of later iterations are now in" in caplog.text
    assert [row["training_iteration"] for row in read_metrics(tmp_path)] == [1, 2, 3]


WRITER = """
import sys, time
from prefix_rft_rllib.runs.run_directory import RunDirectory
run = RunDirectory(sys.argv[1])
run.write_metrics(1, {"a": 1.0})
print("written", flush=True)
time.sleep(600)
"""


def test_two_processes_cannot_write_one_run_and_a_killed_one_is_no_hindrance(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "written\n"
        run = RunDirectory(tmp_path, iteration=1)
        with pytest.raises(ValueError, match=r"another process is writing a run there"):
            run.write_metrics(2, {"a": 2.0})
        assert len(read_metrics(tmp_path)) == 1
        other.kill()
    deadline = time.monotonic() + 10
    while True:
        try:
            run.write_metrics(2, {"a": 2.0})
            break
        except ValueError:
            assert time.monotonic() < deadline
    run.close()
    assert len(read_metrics(tmp_path)) == 2


def test_a_lock_is_taken_before_the_first_row_too(tmp_path):
    run = RunDirectory(tmp_path, iteration=1)
    run.lock()
    run.lock()
    assert "another process is writing a run there" in other_writer(tmp_path)
    run.close()
    assert other_writer(tmp_path) == ""
