"""Ctrl-C and SIGTERM end an iteration that samples, and wait for one that updates."""

import errno
import shutil
import signal

import pytest

from prefix_rft_rllib.runs.checkpoints import checkpoint_path, newest_checkpoint
from prefix_rft_rllib.runs.run_directory import read_metrics, read_minibatches
from tests.algorithm_runs import (
    assert_close,
    assert_same_rollouts,
    numbers_of,
    signal_before,
)
from tests.small_configs import HELD_OUT

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]


@pytest.fixture(scope="module")
def ran(run, make_config, tmp_path_factory):
    """An algorithm with an evaluation in each iteration; restored to the state after the first."""
    run_dir = tmp_path_factory.mktemp("ended")
    config = make_config({"held_out_data": HELD_OUT}).evaluation(
        evaluation_interval=1, held_out_num_samples=1
    )
    config.reporting(run_dir=str(run_dir), num_logged_groups=4).checkpointing(every=100)
    algo = config.build_algo()
    algo.train()
    yield algo, algo.save_to_path(str(run_dir / "after_one"))
    algo.stop()


@pytest.fixture
def algo(ran):
    algo, checkpoint = ran
    algo.restore_from_path(checkpoint)
    return algo


def iterations_in(algo) -> tuple[list[int], set[int]]:
    """Iterations of the run directory: those with metrics, those with optimizer steps."""
    run_dir = algo.config.run_dir
    rows, steps = read_metrics(run_dir), read_minibatches(run_dir)
    return [r["training_iteration"] for r in rows], {s["training_iteration"] for s in steps}


def test_sigterm_gives_up_an_iteration_that_samples(algo, run, monkeypatch):
    signal_before(monkeypatch, algo.env_runners, "_sample_once", signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        algo.train()
    assert caught.value.code == 143
    assert algo.iteration == 1
    # The same algorithm goes on as if nothing had been.
    assert_close(numbers_of(algo.train()), run.numbers[2])
    assert_same_rollouts(algo.config.run_dir, 2, run)
    assert iterations_in(algo) == ([1, 2], {1, 2})


def test_a_signal_leaves_a_checkpoint_of_the_last_whole_iteration(algo, monkeypatch):
    signal_before(monkeypatch, algo.env_runners, "_sample_once", signal.SIGTERM)
    with pytest.raises(SystemExit):
        algo.train()
    left = newest_checkpoint(algo.config.run_dir)
    assert left == checkpoint_path(algo.config.run_dir, 1)
    signal_before(monkeypatch, algo, "_update", signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        algo.train()
    assert newest_checkpoint(algo.config.run_dir) == checkpoint_path(algo.config.run_dir, 2)


def test_an_update_that_has_begun_is_completed_and_written(algo, run, monkeypatch):
    signal_before(monkeypatch, algo, "_update", signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        algo.train()
    assert algo.iteration == 2
    assert iterations_in(algo) == ([1, 2], {1, 2})
    assert not [key for key in read_metrics(algo.config.run_dir)[1] if "evaluation/" in key]
    assert_close(numbers_of(algo.train()), run.numbers[3])
    assert [key for key in read_metrics(algo.config.run_dir)[2] if "evaluation/" in key]


def test_rewards_that_were_observed_belong_to_an_iteration_that_is_completed(algo, monkeypatch):
    signal_before(monkeypatch, algo._feedback, "observe", signal.SIGTERM)
    with pytest.raises(SystemExit):
        algo.train()
    assert algo.iteration == 2
    assert iterations_in(algo) == ([1, 2], {1, 2})


def test_an_evaluation_is_given_up_and_its_iteration_counts(algo, run, monkeypatch):
    signal_before(monkeypatch, algo, "evaluate", signal.SIGTERM)
    with pytest.raises(SystemExit):
        algo.train()
    assert algo.iteration == 2
    assert iterations_in(algo) == ([1, 2], {1, 2})
    assert_close(numbers_of(algo.train()), run.numbers[3])


def test_an_iteration_that_failed_in_its_update_is_not_run_again(ran, run, monkeypatch):
    algo, checkpoint = ran
    algo.restore_from_path(checkpoint)
    with monkeypatch.context() as patched:
        patched.setattr(algo._recorder._run, "write_minibatches", full)
        with pytest.raises(
            OSError, match=r"The run directory .* cannot be written: .*No space left"
        ):
            algo.train()
    with pytest.raises(RuntimeError, match="Iteration 2 failed after its update had begun"):
        algo.train()
    algo.restore_from_path(checkpoint)
    assert_close(numbers_of(algo.train()), run.numbers[2])
    assert iterations_in(algo) == ([1, 2], {1, 2})


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_iteration_whose_row_is_not_written_is_named_by_its_number(algo, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(algo._recorder._run, "write_metrics", full)
        with pytest.raises(OSError, match=r"Iteration 2 is not recorded as a whole"):
            algo.train()
    with pytest.raises(RuntimeError, match="Iteration 2 failed after its update had begun"):
        algo.train()


def test_an_iteration_counts_whose_checkpoint_cannot_be_written(algo, run, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setitem(vars(algo.config), "every", 1)
        patched.setattr(algo, "save_to_path", full)
        with pytest.raises(OSError, match="No space left"):
            algo.train()
    assert iterations_in(algo) == ([1, 2], {1, 2})
    assert_close(numbers_of(algo.train()), run.numbers[3])


def test_a_signal_ends_a_run_whose_checkpoint_cannot_be_written(algo, monkeypatch, caplog):
    monkeypatch.setattr(type(algo), "save_to_run_dir", full)
    shutil.rmtree(checkpoint_path(algo.config.run_dir, 1), ignore_errors=True)

    def signalled(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(algo.env_runners, "_sample_once", signalled)
    with pytest.raises(SystemExit) as caught:
        algo.train()
    assert caught.value.code == 143
    assert "No checkpoint of iteration 1 could be written" in caplog.text
