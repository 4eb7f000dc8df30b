"""Env runners whose engine is broken, or that hang, are replaced, and the run is the same."""

import os
import re
import signal
import threading
import time

import pytest
import torch

from prefix_rft_rllib import metrics
from prefix_rft_rllib.engines import EngineBrokenError
from prefix_rft_rllib.rollouts import env_runners
from prefix_rft_rllib.runs.run_directory import read_metrics
from tests.algorithm_runs import assert_close, assert_same_rollouts, numbers_of

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]


@pytest.fixture(scope="module")
def remote(cluster, make_config, tmp_path_factory):
    """An algorithm with two remote env runners after one iteration, and its state then."""
    run_dir = tmp_path_factory.mktemp("failures")
    config = make_config().env_runners(num_env_runners=2)
    algo = config.reporting(run_dir=str(run_dir), num_logged_groups=4).build_algo()
    algo.train()
    yield algo, algo.save_to_path(str(run_dir / "after_one"))
    algo.stop()


@pytest.fixture
def algo(remote):
    """The algorithm with both runners healthy."""
    algo, checkpoint = remote
    wait_for_runners(algo)
    algo.restore_from_path(checkpoint)
    return algo


def wait_for_runners(algo) -> None:
    deadline = time.monotonic() + 60
    while algo.env_runner_group.num_healthy_remote_env_runners() < 2:
        algo.restore_env_runners(algo.env_runner_group)
        assert time.monotonic() < deadline


def pids(algo) -> list[int]:
    return algo.env_runner_group.foreach_env_runner(
        lambda runner: os.getpid(), local_env_runner=False
    )


def on_runner(algo, number: int, function) -> None:
    algo.env_runner_group.foreach_env_runner(
        function, remote_worker_ids=[number], local_env_runner=False
    )


def break_engine(runner) -> None:
    """A broken engine with a thread that hangs: it keeps a process from ending in good order."""
    threading.Thread(target=threading.Event().wait).start()

    def broken(*args, **kwargs):
        raise EngineBrokenError("The engine is broken: out of order. Build a new one.")

    runner.engine.generate_stream = broken
    runner.engine.load_weights = broken


def hang(runner) -> None:
    runner.engine.generate_stream = lambda requests: threading.Event().wait()


def test_a_runner_with_a_broken_engine_is_replaced(algo, run):
    before = pids(algo)
    on_runner(algo, 1, break_engine)
    assert_close(numbers_of(algo.train()), run.numbers[2])
    assert_same_rollouts(algo.config.run_dir, 2, run)
    wait_for_runners(algo)
    after = pids(algo)
    assert after[0] not in before
    assert after[1] == before[1]
    assert_close(numbers_of(algo.train()), run.numbers[3])


def run_out_of_memory(*args, **kwargs) -> None:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def be_killed(*args, **kwargs) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang_in_the_verifier(*args, **kwargs) -> None:
    threading.Event().wait()


def faults_of(result) -> list[float]:
    return [result[metrics.FAULTS][name] for name in metrics.FAULT_METRICS]


def test_a_runner_out_of_memory_is_replaced_and_its_error_is_said(algo, run, caplog):
    """The eight rollouts of its two groups are sampled again, and trained on once."""
    (pid, _) = pids(algo)
    on_runner(algo, 1, lambda runner: setattr(runner.engine, "generate_stream", run_out_of_memory))
    result = algo.train()
    assert_close(numbers_of(result), run.numbers[2])
    assert_same_rollouts(algo.config.run_dir, 2, run)
    assert faults_of(result) == [1, 0, 8]
    row = read_metrics(algo.config.run_dir)[-1]
    assert row["faults/num_rollouts_sampled_again"] == 8
    (said,) = [r.getMessage() for r in caplog.records if "failed_env_runners" in r.pathname]
    assert said.startswith("env runner 1 (actor ") and f", process {pid} on node " in said
    assert re.search(r"\.err\): (its process has ended|it cannot be reached): ", said)
    assert "It raised OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "faults"),
    [
        ("engine.generate_stream", [1, 0, 8]),
        ("_play", [1, 0, 8]),
        ("engine.load_weights", [1, 0, 0]),
    ],
    ids=["sampling", "verifying", "syncing"],
)
def test_a_runner_killed_anywhere_changes_nothing(algo, run, place, faults):
    def inject(runner):
        *path, name = place.split(".")
        owner = runner.engine if path else runner
        setattr(owner, name, be_killed)

    on_runner(algo, 1, inject)
    started = time.monotonic()
    result = algo.train()
    assert_close(numbers_of(result), run.numbers[2])
    assert_same_rollouts(algo.config.run_dir, 2, run)
    assert faults_of(result) == faults
    print(f"killed in {place}: {time.monotonic() - started:.1f} s")
    assert_close(numbers_of(algo.train()), run.numbers[3])


@pytest.mark.slow
def test_a_verifier_that_hangs_is_ended_with_its_runner(algo, run, monkeypatch, caplog):
    monkeypatch.setattr(algo.env_runners, "sample_timeout_s", 10.0)
    on_runner(algo, 1, lambda runner: setattr(runner, "_play", hang_in_the_verifier))
    result = algo.train()
    assert_close(numbers_of(result), run.numbers[2])
    assert faults_of(result) == [0, 1, 8]
    assert "no answer within 10.0 s. Ray starts a new one" in caplog.text


def test_an_engine_that_breaks_while_it_takes_weights_is_replaced(algo, run):
    before = pids(algo)
    for number in (1, 2):
        on_runner(algo, number, break_engine)
    algo.sync_weights()
    assert_close(numbers_of(algo.train()), run.numbers[2])
    wait_for_runners(algo)
    assert not set(pids(algo)) & set(before)


def test_a_runner_that_hangs_is_replaced_after_the_drivers_deadline(algo, run, monkeypatch):
    before = pids(algo)
    monkeypatch.setattr(algo.env_runners, "sample_timeout_s", 10.0)
    on_runner(algo, 2, hang)
    started = time.monotonic()
    assert_close(numbers_of(algo.train()), run.numbers[2])
    assert time.monotonic() - started > 10.0
    assert_same_rollouts(algo.config.run_dir, 2, run)
    wait_for_runners(algo)
    after = pids(algo)
    assert after[0] == before[0]
    assert after[1] not in before


def test_a_runner_that_always_hangs_ends_the_run_with_an_error(algo, monkeypatch):
    monkeypatch.setattr(algo.env_runners, "sample_timeout_s", 0.001)
    monkeypatch.setattr(env_runners, "RESTART_TIMEOUT_S", 60.0)
    plan = algo._plan(1)
    rollouts = [rollout for group in plan.groups() for rollout in group.planned]
    with pytest.raises(RuntimeError, match="could not be sampled in 3 rounds"):
        algo.sample_rollouts(rollouts)


def test_a_broken_engine_in_the_driver_raises(make_config, tmp_path):
    algo = make_config().reporting(run_dir=str(tmp_path)).build_algo()
    break_engine_quietly(algo.env_runner)
    with pytest.raises(EngineBrokenError, match="out of order"):
        algo.train()
    algo.stop()


def break_engine_quietly(runner) -> None:
    def broken(requests):
        raise EngineBrokenError("out of order")

    runner.engine.generate_stream = broken


def test_the_deadline_must_be_positive(make_config):
    with pytest.raises(
        ValueError, match=r"`sample_timeout_s` must be a finite number above 0, or None"
    ):
        make_config().env_runners(sample_timeout_s=0).validate()
