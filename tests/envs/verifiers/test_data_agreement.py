"""Agreement with labelled cases and demonstrations of other projects (not shipped)."""

import gzip
import json
import random
from pathlib import Path

import pytest

from prefix_rft_rllib.envs.verifiers import MathVerifier

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the shared data in {DATA}")


def load(name):
    opener = gzip.open if name.endswith(".gz") else open
    with opener(DATA / name, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def boxed():
    with MathVerifier(num_workers=2) as verifier:
        yield verifier


@pytest.mark.parametrize(
    "name", ["train_gsm8k.jsonl.gz", "train_math.jsonl.gz", "train_limo_long.jsonl.gz"]
)
def test_every_verified_demonstration_is_correct(boxed, name):
    rows = [row for row in load(name) if row["demonstration_verified"]]
    verdicts = boxed.verify_batch(
        [row["demonstration"] for row in rows], [row["answer"] for row in rows]
    )
    wrong = [row["id"] for row, verdict in zip(rows, verdicts, strict=True) if verdict != "CORRECT"]
    assert rows
    assert wrong == []


def test_pairs_labelled_agreed_are_met_to_98_percent():
    rows = [r for r in load("verifier_cases.jsonl") if r["kind"] == "answer_pair"]
    rows = [row for row in rows if row["label_class"] == "agreed"]
    with MathVerifier(num_workers=2) as verifier:
        agree = [
            (verifier.compare(row["gold"], row["response"]) == "CORRECT") == row["expected"]
            for row in rows
        ]
    assert len(rows) == 165
    assert sum(agree) / len(agree) >= 0.98


def test_labelled_responses_are_met_to_98_and_a_half_percent():
    rows = load("verifier_responses.jsonl.gz")
    with MathVerifier(extract="last", num_workers=2) as verifier:
        verdicts = verifier.verify_batch(
            [row["response"] for row in rows], [row["gold"] for row in rows]
        )
    agree = [(v == "CORRECT") == row["expected"] for v, row in zip(verdicts, rows, strict=True)]
    assert len(rows) == 542
    assert sum(agree) / len(agree) >= 0.985


def test_different_answers_drawn_at_random_are_never_equal(boxed):
    answers = [row["answer"] for row in load("eval_math500.jsonl")]
    answers += [row["answer"] for row in load("train_aime_1983_2023.jsonl.gz")]
    answers += [row["answer"] for row in load("eval_gsm8k.jsonl")]
    distinct = sorted(set(answers))
    generator = random.Random(0)
    pairs = [generator.sample(distinct, 2) for _ in range(600)]
    verdicts = boxed.verify_batch([rf"\boxed{{{a}}}" for a, _ in pairs], [b for _, b in pairs])
    equal = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict == "CORRECT"]
    assert equal == []
