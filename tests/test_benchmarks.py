"""The benchmarks run; what they measure on a busy machine says nothing."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.integration


def rows_of(script: str, tmp_path: Path, *options: str) -> list[dict[str, str]]:
    """Run a benchmark in a process of its own; returns the CSV."""
    out = tmp_path / "out.csv"
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *options, "--out", str(out)],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        cwd=tmp_path,
        check=True,
        timeout=280,
    )
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def test_learner_benchmark_reports_both_kinds_of_memory_use(tmp_path):
    rows = rows_of("learner_gpu.py", tmp_path, "--small", "--peak-tflops", "1")
    assert [row["activation_checkpointing"] for row in rows] == ["True", "False"]
    for row in rows:
        # Passes cost 2 * N + 2 * L * h * T = 2 * N + 2 * 2 * 128 * 128; an update is four.
        per_token = 4 * (2 * int(row["num_parameters"]) + 65536)
        expected = float(row["tokens_per_s"]) * per_token / 1e12
        assert float(row["utilisation"]) == pytest.approx(expected, abs=1e-3)
        assert int(row["num_rows"]) * int(row["row_tokens"]) == 512


def test_engine_benchmark_measures_every_installed_engine(tmp_path):
    rows = rows_of("engine_gpu.py", tmp_path, "--small")
    assert rows[0]["engine"] == "transformers"
    assert all(int(row["tokens_per_s"]) > 0 for row in rows)


def test_weight_sync_benchmark_reports_time_and_memory(tmp_path):
    options = ["--hidden-size", "64", "--num-layers", "1", "--num-repetitions", "1"]
    values = {r["what"]: r["value"] for r in rows_of("weight_sync.py", tmp_path, *options)}
    assert float(values["sync_over_copy"]) > 0
    assert float(values["env_runner_2/private_after"]) > 0


def test_sampling_ahead_benchmark_measures_runs_with_and_without_lag(tmp_path):
    options = ["--hidden-size", "64", "--num-layers", "1", "--num-iterations", "1"]
    options += ["--num-problems", "2", "--num-new-tokens", "8"]
    rows = rows_of("sampling_ahead.py", tmp_path, *options)
    assert [row["max_weight_staleness"] for row in rows] == ["0", "1"]


def test_shared_prompts_benchmark_compares_times_and_gradients(tmp_path):
    options = ["--num-layers", "1", "--case", "6:4", "--skip-toy", "--num-repetitions", "1"]
    rows = rows_of("shared_prompts.py", tmp_path, *options)
    assert [row["contender"] for row in rows] == ["apart", "shared"]
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert all(float(row["gradient_difference"]) < 1e-5 for row in rows)
