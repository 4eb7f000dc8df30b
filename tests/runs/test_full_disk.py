"""A full disk: nothing is half written, and the error says where, when and what to do."""

import errno
import resource
import signal

import numpy as np
import pytest

from prefix_rft_rllib.runs.run_directory import RunDirectory, read_metrics, read_minibatches
from prefix_rft_rllib.runs.run_recorder import RunRecorder
from tests.run_records import record


@pytest.fixture
def full_disk():
    """Writes of this process fail from a size of 64 KB of a file on, in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then raises
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_row_that_does_not_fit_on_the_disk_leaves_whole_rows(tmp_path, full_disk):
    run = RunDirectory(tmp_path)
    row = {"loss": 0.5, "text": "x" * 30_000}
    run.write_minibatches(1, [row, row])
    size = (tmp_path / "minibatches.jsonl").stat().st_size
    with pytest.raises(OSError, match="File too large"):
        run.write_minibatches(2, [row])
    assert (tmp_path / "minibatches.jsonl").stat().st_size == size
    assert [row["training_iteration"] for row in read_minibatches(tmp_path)] == [1, 1]
    run.write_minibatches(2, [{"loss": 0.25}])  # there is room again
    assert [row["training_iteration"] for row in read_minibatches(tmp_path)] == [1, 1, 2]
    run.close()


def test_rollouts_that_do_not_fit_on_the_disk_leave_nothing(tmp_path, full_disk):
    run = RunDirectory(tmp_path)
    noise = np.random.default_rng(0).random(40_000).tolist()  # 64 KB and more, compressed
    tokens = {"response_ids": [1] * len(noise), "region": ["response"] * len(noise)}
    tokens |= dict.fromkeys(("entropy", "old_logp", "engine_logp", "weight"), noise)
    tokens["kept"] = [True] * len(noise)
    long = record(**tokens)
    with pytest.raises(OSError, match="File too large"):
        run.write_rollouts(1, [long])
    assert list((tmp_path / "rollouts").iterdir()) == []
    run.close()


def test_an_error_of_the_disk_names_directory_room_and_iteration(tmp_path, monkeypatch):
    recorder = RunRecorder.__new__(RunRecorder)
    recorder._directory = str(tmp_path)
    with pytest.raises(OSError, match="No space left on device") as caught, recorder._writing(7):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    assert f"The run directory {tmp_path} cannot be written" in str(caught.value)
    assert "Iteration 7 is not recorded as a whole." in str(caught.value)


def test_events_that_do_not_fit_on_the_disk_are_an_error_not_a_hang(tmp_path, full_disk):
    run = RunDirectory(tmp_path)
    run.write_metrics(1, {"a": 1.0})
    with pytest.raises(OSError, match="File too large"):
        run._open().write_scalars(2, {f"scalar/number_{i}": 1.0 for i in range(5000)})
    assert [row["training_iteration"] for row in read_metrics(tmp_path)] == [1]
