"""The command from end to end, on a tiny model and generated problems."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prefix_rft_rllib import evaluate as command
from prefix_rft_rllib.evaluate import EvaluationOptions, evaluate, main
from prefix_rft_rllib.evaluation.completions import CompletionsFile, read_completions
from prefix_rft_rllib.rollouts.env_runners import EnvRunners
from prefix_rft_rllib.transfers.evaluated_model import MODEL_IN_CHECKPOINT, find_model

DATA = {"data_config": {"num_problems": 5, "min_clauses": 1, "max_clauses": 2, "seed": 0}}
VALUES = {
    "num_samples": 4,
    "seeds": (0, 1),
    "temperature": 1.0,
    "attempts_per_call": 3,
    "max_prompt_tokens": 64,
    "max_response_tokens": 12,
    "env_config": DATA,
}
NUM_QUESTIONS = 5 + 2 * 4 * 5


def run(model: str, out: Path, *, compare: Path | None = None, **changes) -> dict:
    options = EvaluationOptions(**{**VALUES, **changes})
    return evaluate(model, ["toy_arithmetic"], out, options=options, compare=compare)


def line_of(model: str, out: Path) -> list[str]:
    sizes = ["--max-prompt-tokens", "64", "--max-response-tokens", "12", "--temperature", "1"]
    sizes += ["--num-samples", "4", "--seeds", "0", "1", "--attempts-per-call", "3"]
    where = ["--model", model, "--benchmark", "toy_arithmetic", "--out", str(out)]
    return [*where, *sizes, "--env-config", json.dumps(DATA)]


@pytest.fixture(scope="module")
def whole(tiny_model_dir, tmp_path_factory) -> Path:
    """The directory of an evaluation that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    run(tiny_model_dir, out)
    return out


@pytest.fixture
def asked(monkeypatch) -> list:
    """Every question that a model is asked."""
    questions = []
    sample = EnvRunners.sample

    def counted(self, rollouts, **kwargs):
        questions.extend((r.problem_id, r.seed, kwargs["sampling"].temperature) for r in rollouts)
        return sample(self, rollouts, **kwargs)

    monkeypatch.setattr(EnvRunners, "sample", counted)
    return questions


def test_every_completion_is_written_and_scored(whole):
    found = read_completions(whole / "toy_arithmetic.jsonl").by_question
    assert len(found) == NUM_QUESTIONS
    results = json.loads((whole / "results.json").read_text())["benchmarks"]["toy_arithmetic"]
    sampled = [c for q, c in found.items() if q.seed is not None]
    mean = sum(c.num_tokens for c in sampled) / len(sampled)
    assert results["overall"]["response_length"]["mean"] == pytest.approx(mean)
    assert results["overall"]["truncated_fraction"]["mean"] == pytest.approx(
        sum(c.is_truncated for c in sampled) / len(sampled)
    )
    assert {"avg@4", "pass@4", "maj@4", "greedy_pass@1"} <= results["overall"].keys()
    assert results["over_seeds"]["avg@4"]["num_seeds"] == 2
    assert len({c.response for c in sampled}) > len(sampled) / 2, "samples differ"


@pytest.mark.parametrize("num_calls", [0, 1, 5])
def test_a_run_killed_while_it_writes_goes_on_and_asks_nothing_twice(
    num_calls, whole, tiny_model_dir, tmp_path, monkeypatch, asked
):
    append = CompletionsFile.append
    calls = []

    def killed(self, completions):
        calls.append(completions)
        if len(calls) <= num_calls:
            return append(self, completions)
        append(self, completions)
        self._file.truncate(self._file.tell() - 40)  # within the call's last line
        raise KeyboardInterrupt

    monkeypatch.setattr(CompletionsFile, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model_dir, tmp_path)
    monkeypatch.setattr(CompletionsFile, "append", append)
    written = read_completions(tmp_path / "toy_arithmetic.jsonl")
    assert written.num_dropped_bytes
    assert not (tmp_path / "results.json").exists()
    del asked[:]
    run(tiny_model_dir, tmp_path)
    assert len(asked) == len(set(asked)) == NUM_QUESTIONS - len(written.by_question)
    assert same_results(tmp_path, whole)


def same_results(one: Path, other: Path) -> bool:
    texts = [(directory / "results.json").read_bytes() for directory in (one, other)]
    return texts[0] == texts[1]


def test_a_second_run_asks_nothing_and_loads_no_model(whole, tiny_model_dir, monkeypatch):
    monkeypatch.setattr(EnvRunners, "sample", None)
    before = (whole / "results.json").read_bytes()
    run(tiny_model_dir, whole)
    assert (whole / "results.json").read_bytes() == before


def test_more_samples_are_asked_for_beside_those_that_are_there(
    whole, tiny_model_dir, tmp_path, asked
):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    results = run(tiny_model_dir, tmp_path, num_samples=6)
    assert len(asked) == 2 * 2 * 5
    assert "avg@6" in results["benchmarks"]["toy_arithmetic"]["overall"]


def test_the_size_of_calls_changes_no_completion(whole, tiny_model_dir, tmp_path):
    run(tiny_model_dir, tmp_path, attempts_per_call=100)
    assert same_results(tmp_path, whole)


def test_other_settings_do_not_mix_with_what_is_there(whole, tiny_model_dir):
    with pytest.raises(ValueError, match=r"`temperature` is 1.0 there and 0.5 now"):
        run(tiny_model_dir, whole, temperature=0.5)
    with pytest.raises(ValueError, match=r"`problems` is .* there and .* now"):
        run(tiny_model_dir, whole, num_problems=3)


def test_a_model_compared_with_itself_is_no_better(whole, tiny_model_dir, tmp_path, capsys):
    other = tmp_path / "other.jsonl"
    shutil.copy(whole / "toy_arithmetic.jsonl", other)
    arguments = [*line_of(tiny_model_dir, whole), "--compare", str(other)]
    assert main(arguments) == 0
    found = json.loads((whole / "results.json").read_text())["benchmarks"]["toy_arithmetic"]
    assert found["comparison"]["greedy"]["p_value"] == 1.0
    assert found["comparison"]["sampled"]["difference"]["mean"] == 0.0
    shown = capsys.readouterr().out
    assert "difference, greedy" in shown
    assert "p = 1, better at 0, worse at 0" in shown
    assert main(line_of(tiny_model_dir, whole)) == 0  # as it was


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--benchmark", "nothing"], "Unknown benchmark 'nothing'. Known: aime2024"),
        (["--benchmark", "toy_code", "toy_code"], "one or more different benchmarks"),
        (["--ks", "0"], "`ks` must be a list of whole numbers of at least 1"),
        (["--ks", "64"], "`ks` has 64, but there are 4 sampled attempts"),
        (["--model", "/nowhere"], "`--model` ('/nowhere') is not a directory"),
        (["--breakdown", "levle"], "No problem has the field 'levle'"),
        (["--engine", "llama"], "`engine` must be"),
        (["--max-response-tokens", "1000"], "exceeds the context of 128"),
        (["--compare", "/nowhere.jsonl"], "there is no file '/nowhere.jsonl'"),
    ],
)
def test_what_is_wrong_is_said_at_once(changes, message, tiny_model_dir, tmp_path, capsys, asked):
    assert main([*line_of(tiny_model_dir, tmp_path), *changes]) == 2
    assert message in capsys.readouterr().err
    assert not asked


def test_a_benchmark_without_problems_is_an_error(tiny_model_dir, tmp_path, capsys):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    arguments = [*line_of(tiny_model_dir, tmp_path), "--benchmark", str(empty)]
    assert main([*arguments, "--env-config", "{}"]) == 2
    assert "No problem was found in" in capsys.readouterr().err


def test_problems_of_a_domain_without_verifier_are_an_error(tiny_model_dir, tmp_path, capsys):
    file = tmp_path / "odd.jsonl"
    file.write_text('{"prompt": "2 + 3 ?", "answer": "5", "domain": "odd"}\n')
    arguments = [*line_of(tiny_model_dir, tmp_path), "--benchmark", str(file)]
    assert main([*arguments, "--env-config", "{}"]) == 2
    assert "no verifier is known for the domain 'odd'" in capsys.readouterr().err


def test_several_benchmarks_make_one_table(tiny_model_dir, tmp_path, capsys):
    for name in ("one", "two"):
        row = {"prompt": f"2 + 3 ? {name}", "answer": "5"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    files = [str(tmp_path / f"{name}.jsonl") for name in ("one", "two")]
    out = tmp_path / "out"
    arguments = [*line_of(tiny_model_dir, out), "--env-config", "{}", "--benchmark", *files]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "one: 1 problems" in shown
    assert "two: 1 problems" in shown
    assert list(json.loads((out / "results.json").read_text())["benchmarks"]) == ["one", "two"]


def test_a_checkpoint_without_a_whole_model_is_an_error(tmp_path):
    (tmp_path / MODEL_IN_CHECKPOINT).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"has no whole model in .*save_pretrained"):
        find_model(str(tmp_path))
    (tmp_path / MODEL_IN_CHECKPOINT / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"cannot be read from .*--tokenizer"):
        find_model(str(tmp_path))
    assert find_model(str(tmp_path), "there").tokenizer == "there"


def test_the_help_names_every_option_and_benchmark(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in command.BENCHMARKS)
    assert "Sampled attempts at each problem for each seed" in shown


@pytest.mark.integration
def test_a_checkpoint_is_evaluated_with_the_tokenizer_of_its_run(tiny_config, tmp_path):
    algo = tiny_config.build_algo()
    try:
        algo.train()
        checkpoint = algo.save_to_path(str(tmp_path / "checkpoint"))
        algo.save_pretrained(tmp_path / "exported")
    finally:
        algo.stop()
    run(checkpoint, tmp_path / "a")
    run(str(tmp_path / "exported"), tmp_path / "b")
    found = [read_completions(tmp_path / name / "toy_arithmetic.jsonl") for name in "ab"]
    assert found[0].by_question == found[1].by_question


@pytest.mark.integration
def test_two_env_runners_give_the_completions_of_none(whole, tiny_model_dir, tmp_path):
    run(tiny_model_dir, tmp_path, num_env_runners=2)
    assert same_results(tmp_path, whole)


@pytest.mark.integration
def test_a_killed_process_is_gone_on_with(whole, tiny_model_dir, tmp_path):
    line = [sys.executable, "-m", "prefix_rft_rllib.evaluate", *line_of(tiny_model_dir, tmp_path)]
    file = tmp_path / "toy_arithmetic.jsonl"
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (file.exists() and file.read_bytes().count(b"\n") > 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(line_of(tiny_model_dir, tmp_path)) == 0
    assert same_results(tmp_path, whole)
