"""The example scripts as a user runs them, with tiny sizes, in a directory of their own."""

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from prefix_rft_rllib.envs.toy.toy_arithmetic import generate_rows
from prefix_rft_rllib.runs.checkpoints import checkpoint_path, newest_checkpoint
from prefix_rft_rllib.runs.run_directory import read_metrics, read_rollouts

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parent.parent / "tuned_examples"


def run_script(directory: Path, script: str, *arguments: str, expected_code: int = 0) -> str:
    """Run a script inside a directory with all parts in one process; returns what it printed."""
    command = [sys.executable, str(EXAMPLES / script), *arguments, "--num-env-runners", "0"]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(directory)}
    done = subprocess.run(
        command, cwd=directory, env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == expected_code, done.stderr[-3000:]
    return done.stdout


def run_example(directory: Path, script: str, *arguments: str) -> SimpleNamespace:
    """Run a script that makes one run directory."""
    output = run_script(directory, script, *arguments)
    (run_dir,) = (directory / "runs").iterdir()
    return SimpleNamespace(directory=directory, run_dir=run_dir, output=output)


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory) -> SimpleNamespace:
    """One iteration of the default task."""
    arguments = ("--num-iterations", "1", "--num-held-out", "2", "--log")
    directory = tmp_path_factory.mktemp("toy")
    return run_example(directory, "toy_arithmetic_prefix_rft.py", *arguments)


@pytest.fixture(scope="module")
def math_run(tmp_path_factory) -> SimpleNamespace:
    """Two iterations on a file of problems, named by a relative path."""
    directory = tmp_path_factory.mktemp("math")
    rows = generate_rows(num_problems=20, min_clauses=1, max_clauses=2, seed=0)
    lines = [json.dumps(row) for row in rows]
    (directory / "problems.jsonl").write_text("\n".join(lines) + "\n")
    limits = ("--max-prompt-tokens", "64", "--max-response-tokens", "40")
    arguments = ("--data", "problems.jsonl", "--small", "--num-iterations", "2", *limits)
    return run_example(directory, "math_prefix_rft.py", *arguments)


@pytest.fixture(scope="module")
def mixed_run(tmp_path_factory) -> SimpleNamespace:
    """One iteration on programs and word problems."""
    arguments = ("--mixed", "--num-iterations", "1", "--num-held-out", "2", "--log")
    return run_example(tmp_path_factory.mktemp("mixed"), "code_prefix_rft.py", *arguments)


def assert_complete(run_dir: Path, num_iterations: int) -> None:
    rows = read_metrics(run_dir)
    assert [row["training_iteration"] for row in rows] == [*range(1, num_iterations + 1)]
    files = sorted((run_dir / "rollouts").iterdir())
    names = [f"iteration_{i:06d}.jsonl.gz" for i in range(1, num_iterations + 1)]
    assert [file.name for file in files] == names
    assert all(any(r.num_prefix_tokens for r in read_rollouts(file)) for file in files)
    assert newest_checkpoint(run_dir) == checkpoint_path(run_dir, num_iterations)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (run_dir / "model" / name).is_file()


def assert_printed_python_runs(run: SimpleNamespace, monkeypatch) -> None:
    """The lines under "to use it" load the model and print the problem with its answer."""
    lines = textwrap.dedent(run.output.split("to use it:\n")[1])
    monkeypatch.chdir(run.directory)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(lines, {})
    prompt = lines.split("tokenizer('")[1].split("'")[0]
    answer = printed.getvalue().strip().removeprefix(prompt)
    assert printed.getvalue().startswith(prompt)
    assert "boxed{" in answer
    assert answer.endswith("<eos>")


def test_the_toy_example_writes_its_run_checkpoint_model_and_summary(toy_run):
    assert_complete(toy_run.run_dir, num_iterations=1)
    summary = json.loads((toy_run.run_dir / "summary.json").read_text())
    assert summary["method"] == "prefix_rft"
    for results in (summary["before"], summary["after"]):
        assert list(results) == ["new", "harder"]
        assert 0 <= results["new"]["avg_at_k"] <= 1


def test_the_toy_example_logs_prefixes_with_nonzero_weights(toy_run):
    log = [line for line in toy_run.output.splitlines() if "weights of kept tokens" in line]
    assert len(log) == 16, "one prefix rollout for each of 16 problems"
    assert all("in [0.950, 0.950]" in line for line in log)
    assert any("weights of kept tokens [0.875]" in line for line in log)
    assert "minibatch 1: kept" in toy_run.output


def test_the_math_example_writes_its_run_checkpoint_and_model(math_run):
    assert_complete(math_run.run_dir, num_iterations=2)
    assert "groups with signal" in math_run.output


def test_the_math_example_passes_an_absolute_path_and_the_token_limits_on(math_run):
    # Tune's trials run in other directories, where a relative path leads nowhere.
    settings = json.loads((math_run.run_dir / "config.json").read_text())["env_config"]
    assert settings["data"] == str(math_run.directory.resolve() / "problems.jsonl")
    assert (settings["max_prompt_tokens"], settings["max_response_tokens"]) == (64, 40)


def test_in_the_mixed_example_each_problem_meets_its_own_verifier(mixed_run):
    assert_complete(mixed_run.run_dir, num_iterations=1)
    summary = json.loads((mixed_run.run_dir / "summary.json").read_text())
    assert list(summary["before"]) == ["toy_code", "toy_arithmetic"]
    records = read_rollouts(mixed_run.run_dir / "rollouts" / "iteration_000001.jsonl.gz")
    is_code = [record.problem_id.startswith("toy-code-") for record in records]
    assert any(is_code)
    assert not all(is_code)
    for record, code in zip(records, is_code, strict=True):
        assert ("isolation" in (record.verdict_details or {})) == code
    # 95% of a demonstration is given: what is left to write is nearly certain.
    accepted = [code for code, r in zip(is_code, records, strict=True) if r.verdict == "CORRECT"]
    assert set(accepted) == {True, False}
    (row,) = read_metrics(mixed_run.run_dir)
    assert row["rollouts/verdicts/CORRECT"] >= len(accepted)
    assert row["rollouts/verdicts/WRONG"] > 0


def test_the_python_that_the_examples_print_uses_the_trained_model(toy_run, math_run, monkeypatch):
    assert_printed_python_runs(toy_run, monkeypatch)
    assert_printed_python_runs(math_run, monkeypatch)


SMALL = ("--num-iterations", "2", "--num-held-out", "2")


def test_a_run_ends_at_its_first_criterion_and_fails_as_a_test_that_was_not_passed(tmp_path):
    options = ("--stop-timesteps", "1", "--checkpoint-freq", "1", "--evaluation-interval", "0")
    script = ("toy_arithmetic_prefix_rft.py", *SMALL, *options, "--as-test", "--run-dir", "run")
    output = run_script(tmp_path, *script, expected_code=1)
    # One of two iterations, which is too few to learn anything.
    assert "Stop criterion (env_runners/num_env_steps_sampled_lifetime=1) fulfilled!" in output
    assert "--as-test: new is 0." in output and "expected at least 0.75" in output
    run_dir = tmp_path / "run"
    assert_complete(run_dir, num_iterations=1)
    (row,) = read_metrics(run_dir)
    assert not any(key.startswith("evaluation/") for key in row)
    before = (run_dir / "before.json").read_bytes()

    # Resumed without the criterion it goes on to its last iteration.
    on = ("toy_arithmetic_prefix_rft.py", *SMALL, "--evaluation-interval", "0", "--run-dir", "run")
    run_script(tmp_path, *on, "--resume")
    assert_complete(run_dir, num_iterations=2)
    assert (run_dir / "before.json").read_bytes() == before
    assert json.loads((run_dir / "summary.json").read_text())["before"] == json.loads(before)


def test_tune_runs_an_example_and_tests_the_reward(tmp_path):
    options = ("--tune", "--as-test", "--stop-reward", "0.01", "--checkpoint-freq", "1")
    output = run_script(tmp_path, "toy_arithmetic_prefix_rft.py", *SMALL, *options)
    assert "`env_runners/episode_return_mean` of 0.01 reached! ok" in output
    (experiment,) = (tmp_path / "ray_results").iterdir()
    (trial,) = (path for path in experiment.iterdir() if path.is_dir())
    assert [row["training_iteration"] for row in read_metrics(trial)] == [1], "the reward was there"
    assert (trial / "checkpoint_000000" / "rllib_checkpoint.json").is_file()


TABLES = {
    "table.csv": "iteration,set,avg_at_k,pass_at_k,greedy_accuracy",
    "table_rewards.csv": "iteration,reward_plain_mean,reward_prefix_mean,reward_mean,"
    "prefix_window_low,prefix_window_high,num_groups_with_signal",
}


def test_the_methods_example_has_one_row_per_evaluation_and_a_rerun_replaces_its_own(tmp_path):
    # Two earlier runs of three iterations: SFT with seed 0 is run again, seed 5 is not.
    run = "method,method_config,demonstration_fraction,flawed_fraction,seed"
    for table, columns in TABLES.items():
        values = columns.count(",") * ",.5"
        old = [f"sft,{{}},1.0,0.0,{seed},{i}{values}" for seed in (0, 5) for i in (1, 2, 3)]
        (tmp_path / table).write_text("\n".join([f"{run},{columns}", *old]) + "\n")
    methods = ("--method", "prefix_rft", "--method", "sft", "--seeds", "1", "--out", "table.csv")
    sizes = ("--num-iterations", "2", "--num-held-out", "2")
    run_script(tmp_path, "toy_arithmetic_methods.py", *methods, *sizes)
    accuracies, rewards = (
        list(csv.DictReader(io.StringIO((tmp_path / table).read_text()))) for table in TABLES
    )
    for rows in (accuracies, rewards):
        assert [rows.pop(0)["seed"] for _ in range(3)] == ["5", "5", "5"]
        assert {row["seed"] for row in rows} == {"0"}
    keys = [(row["method"], row["iteration"], row["set"]) for row in accuracies]
    both = ("prefix_rft", "sft")
    assert keys == [(m, i, s) for m in both for i in ("0", "2") for s in ("new", "harder")]
    assert [(r["method"], r["iteration"]) for r in rewards] == [(m, i) for m in both for i in "12"]
    assert all(0 <= float(row["avg_at_k"]) <= float(row["pass_at_k"]) <= 1 for row in accuracies)
    # Half a cosine from .95 to .05 over two iterations: .95, then (.95 + .05) / 2.
    windows = [float(row["prefix_window_low"]) for row in rewards[:2]]
    assert windows == pytest.approx([0.95, 0.5])
    assert [row["reward_mean"] for row in rewards[2:]] == ["", ""], "SFT samples nothing"
    run_dirs = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert run_dirs == [f"toy_methods_{method}_seed0" for method in both]
