"""The example of real word problems, with a tiny random model and generated rows."""

import gzip
import json
from pathlib import Path

import pytest
import resumable_run
import word_problems_smollm2 as example

from prefix_rft_rllib import PrefixRFT
from prefix_rft_rllib.envs.toy.toy_arithmetic import generate_rows
from prefix_rft_rllib.evaluation.completions import CompletionsFile, read_completions
from prefix_rft_rllib.learners.learner_group import PrefixRFTLearnerGroup as LearnerGroup
from prefix_rft_rllib.runs.checkpoints import checkpoints_of
from prefix_rft_rllib.runs.run_directory import read_metrics, read_rollouts
from tests.small_configs import HALF_RIGHT

pytest_plugins = ("tests.algorithm_fixtures",)

LENGTHS = {
    "prefix_rft": ("--num-rl-iterations=3",),
    "rft": ("--num-rl-iterations=1",),
    "sft": ("--num-sft-iterations=2",),
    "sft_rft": ("--num-sft-iterations=2", "--num-rl-iterations=1"),
}
SETS = ["asdiv_held_out", "svamp", "gsm8k"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """Generated problems under the names of the real files."""
    directory = tmp_path_factory.mktemp("data")
    for seed, (name, file) in enumerate(example.FILES.items()):
        count = 80 if name == "asdiv" else 3
        rows = generate_rows(num_problems=count, min_clauses=1, max_clauses=2, seed=seed)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        opened = gzip.open if file.endswith(".gz") else open
        with opened(directory / file, "wt") as written:
            written.write(text)
    return directory


@pytest.fixture
def small(monkeypatch) -> None:
    """Sizes of the tiny model, and a verifier that rewards what it writes."""
    prompt = {"prompt_template": "{prompt}\n", "chat_template": False, "verifier": HALF_RIGHT}
    monkeypatch.setattr(example, "PROMPT", prompt)
    monkeypatch.setattr(example, "MAX_PROMPT_TOKENS", 64)
    tokens = dict.fromkeys(example.MAX_RESPONSE_TOKENS, 40)
    monkeypatch.setattr(example, "MAX_RESPONSE_TOKENS", tokens)
    monkeypatch.setattr(example, "NUM_PROBLEMS_PER_ITERATION", 2)
    monkeypatch.setattr(example, "GROUP_SIZE", 4)


@pytest.fixture
def command(tiny_model_dir, data_dir, tmp_path):
    """Arguments of a run in a directory of the test."""

    def arguments(method: str, directory: str, *more: str) -> list[str]:
        where = [f"--data-dir={data_dir}", f"--run-dir={tmp_path / directory}"]
        rates = {"sft": ("--sft-lr=1e-3",), "sft_rft": ("--sft-lr=1e-3", "--lr=1e-3")}
        lengths = (*LENGTHS[method], *rates.get(method, ("--lr=1e-3",)))
        ask = ("--num-eval-problems=3", "--checkpoint-freq=1")
        return [f"--method={method}", f"--model={tiny_model_dir}", *where, *lengths, *ask, *more]

    return arguments


class Killed(BaseException):
    """In the place of SIGKILL: unlike Ctrl-C, nothing is done about it."""


def interrupt(monkeypatch, owner: type, name: str, after: int) -> None:
    """Let a method work `after` times, and once more for nothing."""
    works, calls = getattr(owner, name), []

    def killed(self, *args, **kwargs):
        result = works(self, *args, **kwargs)
        calls.append(name)
        if len(calls) > after:
            monkeypatch.setattr(owner, name, works)
            raise Killed
        return result

    monkeypatch.setattr(owner, name, killed)


def numbers_of(run_dir: Path) -> list[dict[str, float]]:
    """Metrics of each iteration, without times and memory."""
    kept = ("training_iteration", "rollouts/", "learner/")
    rows = [
        {key: value for key, value in row.items() if key.startswith(kept)}
        for row in read_metrics(run_dir)
    ]
    return [{k: v for k, v in row.items() if not k.endswith(("_s", "per_second"))} for row in rows]


@pytest.mark.integration
@pytest.mark.usefixtures("cluster", "small")
def test_a_run_that_is_killed_anywhere_ends_like_an_uninterrupted_one(
    command, tmp_path, monkeypatch
):
    assert example.main(command("prefix_rft", "whole")) == 0
    kills = (
        (CompletionsFile, "append", 1),  # in the evaluation before training
        (PrefixRFT, "training_step", 1),  # in the second iteration
        (LearnerGroup, "save_to_path", 0),  # while the second checkpoint is written
        (CompletionsFile, "append", 2),  # in the evaluation after training
    )
    for number, kill in enumerate(kills):
        again = ("--resume",) if number else ()
        if number == 3:  # paused after the second iteration, in between
            assert example.main(command("prefix_rft", "pieces", "--resume", "--stop-iters=2")) == 0
        with monkeypatch.context() as patch:
            interrupt(patch, *kill)
            with pytest.raises(Killed):
                example.main(command("prefix_rft", "pieces", *again))
        assert not (tmp_path / "pieces" / "summary.json").exists()
        complete = [*checkpoints_of(tmp_path / "pieces")]
        assert complete == ([], [1], [1], [2, 3])[number]
    assert example.main(command("prefix_rft", "pieces", "--resume")) == 0

    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    assert [row["training_iteration"] for row in numbers_of(pieces)] == [1, 2, 3]
    assert numbers_of(pieces) == numbers_of(whole)
    models = [(run / "model" / "model.safetensors").read_bytes() for run in (whole, pieces)]
    assert models[0] == models[1]
    summary, expected = (json.loads((d / "summary.json").read_text()) for d in (pieces, whole))
    for results in (summary["after"], expected["after"]):
        for found in results.values():
            found["fingerprint"].pop("model")  # where it lies
            found["comparison"].pop("other")
    assert summary == expected
    assert list(summary["after"]) == SETS
    assert summary["num_rollouts"] == 3 * 2 * 4
    for name in SETS:
        after = summary["after"][name]
        assert 0 <= after["overall"]["greedy_pass@1"]["low"] <= 1
        assert after["comparison"]["greedy"]["difference"]["num_problems"] == after["num_problems"]
        completions = read_completions(pieces / "evaluation" / "after" / name / f"{name}.jsonl")
        assert len(completions.by_question) == after["num_problems"]
    names = sorted(path.name for path in (pieces / "checkpoints").iterdir())
    assert names == ["iteration_000002", "iteration_000003"], "complete, and the newest alone"
    trained = read_rollouts(pieces / "rollouts" / "iteration_000001.jsonl.gz")
    assert any(rollout.num_prefix_tokens for rollout in trained)


@pytest.mark.integration
@pytest.mark.usefixtures("cluster", "small")
def test_sft_is_the_first_stage_of_sft_rft_and_rft_has_as_many_rollouts_as_the_second(
    command, tmp_path
):
    for method in ("sft", "sft_rft", "rft"):
        assert example.main(command(method, method)) == 0
    alone, first = (numbers_of(tmp_path / method)[:2] for method in ("sft", "sft_rft"))
    assert alone == first
    summaries = {
        method: json.loads((tmp_path / method / "summary.json").read_text())
        for method in ("sft", "sft_rft", "rft")
    }
    num_rollouts = {method: summary["num_rollouts"] for method, summary in summaries.items()}
    assert num_rollouts == {"sft": 0, "sft_rft": 8, "rft": 8}
    sampled = {
        method: [
            row["training_iteration"]
            for row in numbers_of(tmp_path / method)
            if "rollouts/reward_plain_mean" in row
        ]
        for method in summaries
    }
    assert sampled == {"sft": [], "sft_rft": [3], "rft": [1]}


def test_equal_problems_are_on_one_side_and_all_are_there(data_dir, tmp_path):
    with gzip.open(data_dir / example.FILES["asdiv"], "rt") as file:
        rows = [json.loads(line) for line in file]
    twice = tmp_path / "twice.jsonl"
    again = [*rows, *({**row, "id": f"again-{row['id']}"} for row in rows)]
    twice.write_text("".join(json.dumps(row) + "\n" for row in again))
    parts = example.split_asdiv(twice)
    train, held_out = ([json.loads(line)["prompt"] for line in lines] for lines in parts.values())
    assert sorted(train + held_out) == sorted(row["prompt"] for row in again)
    assert not set(train) & set(held_out)
    assert len(train) > len(held_out) > 0
    twice.write_text('{"question": "2 + 3 ?"}\n')
    with pytest.raises(ValueError, match=r"twice.jsonl:1: the row has no `prompt`, but question"):
        example.split_asdiv(twice)


def test_a_command_with_a_mistake_begins_no_run(command, tmp_path):
    with pytest.raises(SystemExit, match=r"error: `lr` must be"):
        example.main(command("rft", "run", "--lr=-1"))
    assert not (tmp_path / "run" / resumable_run.RUN_FILE).exists()


def test_a_run_directory_holds_one_run(tmp_path):
    with pytest.raises(ValueError, match=r"--resume: .* holds no run. Leave --resume out"):
        resumable_run.begin(tmp_path, {"lr": 1e-5}, resume=True)
    resumable_run.begin(tmp_path, {"lr": 1e-5, "seed": 0}, resume=False)
    resumable_run.begin(tmp_path, {"lr": 1e-5, "seed": 0}, resume=True)
    with pytest.raises(ValueError, match=r"holds a run\. Add --resume to go on with it"):
        resumable_run.begin(tmp_path, {"lr": 1e-5, "seed": 0}, resume=False)
    with pytest.raises(ValueError, match=r"another run: lr is 1e-05 there and 0\.001 now\. Give"):
        resumable_run.begin(tmp_path, {"lr": 1e-3, "seed": 0}, resume=True)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("rft", ("--sft-lr=1e-3",), "--sft-lr has no effect with --method rft: leave it out"),
        ("sft", ("--lr=1e-3",), "--lr has no effect with --method sft"),
        ("rft", ("--tune",), "--tune has no effect: a run is made in pieces"),
        ("rft", ("--stop-reward=1",), "--stop-reward has no effect: methods are compared at equal"),
        ("rft", ("--evaluation-interval=1",), "--evaluation-interval has no effect: models are"),
        ("rft", ("--checkpoint-at-end",), "--checkpoint-at-end has no effect: a run that ends"),
        ("rft", ("--num-rl-iterations=0",), "--num-rl-iterations must be at least 1, got 0"),
        ("rft", ("--data-dir=/nowhere",), "missing: train_asdiv.jsonl.gz, eval_svamp.jsonl, eval"),
        ("rft", (), "--model: m is no model; `smollm2_model.py --out=DIR` makes one"),
    ],
)
def test_what_is_wrong_is_said_at_once(method, arguments, message, data_dir, capsys):
    given = [f"--method={method}", "--model=m", f"--data-dir={data_dir}", *arguments]
    with pytest.raises(SystemExit):
        example.parse_arguments(given)
    assert message in " ".join(capsys.readouterr().err.split())
