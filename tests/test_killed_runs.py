"""Runs that are killed (kill -9 of the driver) and resumed end like uninterrupted ones."""

import json
import random
import time
from pathlib import Path

import pytest

from prefix_rft_rllib import PrefixRFT
from prefix_rft_rllib.resume import main
from prefix_rft_rllib.runs.checkpoints import checkpoints_of
from tests.killed_runs import CASES, config_of, finish, kill_when, process, record_of
from tests.run_records import other_writer

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = pytest.mark.integration

NUM_ITERATIONS = 4


@pytest.fixture
def start():
    """`process`, whose processes end with the test."""
    processes = []

    def started(*args, **kwargs):
        processes.append(process(*args, **kwargs))
        return processes[-1]

    yield started
    for running in processes:
        running.kill()
        running.wait()


def is_saving(run_dir: Path, iteration: int) -> bool:
    return (run_dir / "checkpoints" / f".iteration_{iteration:06d}.unfinished").exists()


def trained(start, case: str, model: str, run_dir: Path, last: int = NUM_ITERATIONS) -> dict:
    """The record of an uninterrupted run."""
    finish(start(case, model, run_dir, last), run_dir)
    record = record_of(run_dir)
    assert record["iterations"] == [*range(1, last + 1)]
    assert sorted(record["events"]) == record["iterations"]
    return record


@pytest.fixture(scope="module")
def whole(cluster, tiny_model_dir, tmp_path_factory) -> dict:
    """The record of an uninterrupted run in this process, that has written a checkpoint too."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    algo = config_of("prefix_rft", tiny_model_dir).reporting(run_dir=str(run_dir)).build_algo()
    for _ in range(NUM_ITERATIONS):
        algo.train()
    algo.stop()
    return record_of(run_dir)


def test_a_run_killed_while_it_saves_goes_on_as_if_it_had_not_been(
    whole, start, tiny_model_dir, tmp_path, capsys
):
    run_dir = tmp_path / "run"
    killed = start("prefix_rft", tiny_model_dir, run_dir, NUM_ITERATIONS, slowness=0.1)
    kill_when(killed, lambda: is_saving(run_dir, 3))
    assert [*checkpoints_of(run_dir)] == [1, 2]
    assert (
        json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])["training_iteration"]
        == 3
    )
    assert main([str(run_dir), "--stop-iters", str(NUM_ITERATIONS)]) == 0
    assert f"{run_dir}: going on after iteration 2" in capsys.readouterr().out
    assert record_of(run_dir) == whole
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == [
        "iteration_000003",
        "iteration_000004",
    ]
    assert not [*run_dir.glob("previous_*")]
    assert whole["metrics"][-1]["counters/num_tokens"] > whole["metrics"][0]["counters/num_tokens"]


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    whole, tiny_model_dir, tmp_path, caplog, capsys
):
    run_dir = tmp_path / "run"
    config = config_of("prefix_rft", tiny_model_dir).reporting(run_dir=str(run_dir))
    algo = config.build_algo()
    for _ in range(3):
        algo.train()
    algo.stop()
    moved = run_dir.rename(tmp_path / "moved")
    newest = moved / "checkpoints" / "iteration_000003" / "algorithm_state.pkl"
    newest.write_bytes(newest.read_bytes()[:100])
    algo = PrefixRFT.resume(moved)
    assert "algorithm_state.pkl has 100 bytes instead of" in caplog.text
    assert algo.iteration == 2
    assert "another process is writing a run there" in other_writer(moved)
    while algo.iteration < NUM_ITERATIONS:
        algo.train()
    algo.stop()
    assert record_of(moved) == whole
    assert [*checkpoints_of(moved / "previous_1")] == [3]

    for path in checkpoints_of(moved).values():
        (path / "algorithm_state.pkl").unlink()
    assert main([str(moved)]) == 2
    assert "error: No checkpoint in" in capsys.readouterr().err
    for empty, message in ((tmp_path, "holds no checkpoint"), (run_dir, "no run directory")):
        assert main([str(empty), "--stop-iters", "3"]) == 2
        assert message in capsys.readouterr().err


def test_changed_data_is_refused_when_a_run_is_resumed(cluster, tiny_model_dir, tmp_path, capsys):
    rows = [{"prompt": f"{n} + 1 ?", "answer": str(n + 1)} for n in range(5)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = config_of("prefix_rft", tiny_model_dir).training(method="rft", method_config={})
    del config.env_config["data_config"]
    config.environment(env_config={"data": str(data)}).reporting(run_dir=str(tmp_path / "run"))
    algo = config.build_algo()
    algo.train()
    algo.stop()
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    assert main([str(tmp_path / "run"), "--stop-iters", "2"]) == 2
    error = capsys.readouterr().err
    assert "`data` is '5 problems, " in error
    assert "accept_changed=['data', 'prompts']" in error
    accepted = ["--accept-changed", "data", "prompts"]
    assert main([str(tmp_path / "run"), "--stop-iters", "2", *accepted]) == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_run_survives_kills(case, start, tiny_model_dir, tmp_path):
    expected = trained(start, case, tiny_model_dir, tmp_path / "whole")
    run_dir = tmp_path / "killed"
    for iteration in (2, 3):  # while a checkpoint is written, and after one
        killed = start(case, tiny_model_dir, run_dir, NUM_ITERATIONS, slowness=0.05)
        if iteration == 2:
            kill_when(killed, lambda: is_saving(run_dir, 2))
        else:
            kill_when(killed, lambda: 3 in checkpoints_of(run_dir))
    finish(start(case, tiny_model_dir, run_dir, NUM_ITERATIONS), run_dir)
    assert record_of(run_dir) == expected


NUM_KILLS, NEVER = 20, 10**6


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [0])
def test_twenty_kills_at_random_moments_change_nothing(seed, start, tiny_model_dir, tmp_path):
    draw = random.Random(seed)
    run_dir = tmp_path / "killed"
    rows = run_dir / "metrics.jsonl"
    newest = []
    for _ in range(NUM_KILLS):
        size = rows.stat().st_size if rows.exists() else 0
        killed = start("relift", tiny_model_dir, run_dir, NEVER, slowness=0.01)
        # From the first row that the process writes on.
        while not (rows.exists() and rows.stat().st_size != size):
            assert killed.poll() is None, Path(f"{run_dir}.txt").read_text()[-3000:]
            time.sleep(0.001)
        until = time.monotonic() + draw.uniform(0.0, 2.0)
        kill_when(killed, lambda until=until: time.monotonic() >= until)
        newest.append(max(checkpoints_of(run_dir), default=0))
    assert newest == sorted(newest)
    last = newest[-1] + 2
    finish(start("relift", tiny_model_dir, run_dir, last), run_dir)
    assert record_of(run_dir) == trained(
        start, "relift", tiny_model_dir, tmp_path / "whole", last
    ), newest
