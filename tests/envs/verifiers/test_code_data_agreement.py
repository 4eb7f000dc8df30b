"""Agreement with published programs, demonstrations and cases (not shipped)."""

import gzip
import json
from pathlib import Path

import pytest

from prefix_rft_rllib.envs.verifiers.code_verifier import CodeVerifier
from tests.envs.verifiers.stdin_solutions import SOLUTIONS

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
DEMONSTRATIONS = {
    "code_humaneval.jsonl": 82,
    "code_mbpp.jsonl": 473,
    "code_leetcode.jsonl.gz": 1566,
}
CASES = "verifier_code_cases.jsonl"
STDIN_FILES = ("code_codeforces_stdin.jsonl", "code_contests_stdin.jsonl")

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the shared data in {DATA}")


def load(name):
    opener = gzip.open if name.endswith(".gz") else open
    with opener(DATA / name, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def verifier():
    with CodeVerifier(extract="block_or_whole", num_workers=2) as verifier:
        yield verifier


def results_of(verifier, rows, field):
    tasks = [
        {
            "response": row[field],
            "tests": row["tests"],
            "entry_point": row["entry_point"],
            "prompt": row.get("prompt", ""),
        }
        for row in rows
    ]
    return verifier.verify_batch(tasks)


def disagreements(verifier, rows, field):
    expected = [row.get("expected", "pass") == "pass" for row in rows]
    return [
        (row["id"], result)
        for row, wanted, result in zip(
            rows, expected, results_of(verifier, rows, field), strict=True
        )
        if (result.verdict == "CORRECT") != wanted or result.verdict == "ERROR"
    ]


@pytest.mark.parametrize("name", DEMONSTRATIONS)
def test_a_sample_of_the_demonstrations_passes(verifier, name):
    rows = load(name)
    # Every 40th, and one that imports numpy, takes its own class or a type as argument.
    special = ("leetcode-train-1374", "mbpp-0601", "mbpp-0533", "humaneval-32")
    sample = [row for i, row in enumerate(rows) if i % 40 == 0 or row["id"] in special]
    assert disagreements(verifier, sample, "demonstration") == []


def test_a_sample_of_the_cases_gets_its_expected_outcome(verifier):
    rows = load(CASES)
    published = [row for row in rows if not row["id"].startswith(("humaneval", "mbpp"))]
    sample = rows[::20] + published
    assert disagreements(verifier, sample, "response") == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "number"), DEMONSTRATIONS.items())
def test_every_demonstration_passes(verifier, name, number):
    rows = load(name)
    assert len(rows) == number
    assert disagreements(verifier, rows, "demonstration") == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_case_gets_its_expected_outcome(verifier):
    rows = load(CASES)
    assert len(rows) == 459
    assert disagreements(verifier, rows, "response") == []


def test_programs_on_standard_input_pass_with_right_solutions_only(verifier):
    rows = [row for name in STDIN_FILES for row in load(name) if row["id"] in SOLUTIONS]
    assert len(rows) == len(SOLUTIONS)
    right = [{**row, "response": SOLUTIONS[row["id"]]} for row in rows]
    assert disagreements(verifier, right, "response") == []
    # Each program meets another problem's input.
    wrong = [
        {**row, "response": SOLUTIONS[other["id"]], "expected": "fail"}
        for row, other in zip(rows, rows[1:] + rows[:1], strict=True)
    ]
    assert disagreements(verifier, wrong, "response") == []
