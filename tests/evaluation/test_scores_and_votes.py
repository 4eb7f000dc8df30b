"""Scores worked out by hand, votes, breakdowns and the table."""

import pytest

from prefix_rft_rllib.envs.problems import Problem
from prefix_rft_rllib.envs.settings import EnvSettings
from prefix_rft_rllib.evaluation.options import EvaluationOptions
from prefix_rft_rllib.evaluation.report import table
from prefix_rft_rllib.evaluation.scores import by_field, collect, score
from prefix_rft_rllib.evaluation.votes import Votes, representatives
from tests.evaluation.completion_cases import completion


def problem(problem_id: str, domain: str = "math", **extra) -> Problem:
    return Problem(
        problem_id=problem_id,
        domain=domain,
        prompt="?",
        prompt_ids=(1,),
        answer="7",
        demonstration_ids=(),
        split="train",
        source="made:1",
        extra=extra,
    )


def votes(verifier: str = "math", **config) -> Votes:
    return Votes(EnvSettings(data=(), tokenizer="t", verifier=verifier, verifier_config=config))


PROBLEMS = [problem("a", level=1), problem("b", level=2)]
# By problem and seed: whether each of two attempts is right, and its length.
TABLE = {
    ("a", 0): [(True, 2), (False, 4)],
    ("a", 1): [(True, 2), (True, 2)],
    ("b", 0): [(False, 6), (False, 6)],
    ("b", 1): [(True, 2), (False, 8)],
}


def answers_of(options: EvaluationOptions):
    rows = [completion(p, None, is_correct=p == "a", num_tokens=3) for p in "ab"]
    for (name, seed), attempts in TABLE.items():
        for member, (is_correct, length) in enumerate(attempts):
            text = rf"\boxed{{{7 if is_correct else 10 + member}}}"
            row = {"is_correct": is_correct, "num_tokens": length, "response": text}
            rows.append(completion(name, seed, member, **row, is_truncated=length == 8))
    by_question = {row.question: row for row in rows}
    return collect(PROBLEMS, by_question, options, votes())


def test_scores_by_hand():
    options = EvaluationOptions(num_samples=2, seeds=(0, 1), breakdown=("level",)).of_protocol(1)
    found = score(answers_of(options), options, max_response_tokens=8)
    overall = {name: estimate["mean"] for name, estimate in found["overall"].items()}
    assert overall == pytest.approx(
        {
            "avg@2": (3 / 4 + 1 / 4) / 2,
            "pass@1": (3 / 4 + 1 / 4) / 2,
            # a: 1 - C(1,2)/C(4,2) = 1; b: 1 - C(3,2)/C(4,2) = 1/2
            "pass@2": (1 + 1 / 2) / 2,
            # a: a tie counts 1/2, two right ones 1; b: two different wrong ones 0, a tie 1/2
            "maj@2": (3 / 4 + 1 / 4) / 2,
            "response_length": (10 / 4 + 22 / 4) / 2,
            "truncated_fraction": (0 + 1 / 4) / 2,
            "greedy_pass@1": 1 / 2,
            "greedy_response_length": 3.0,
            "greedy_truncated_fraction": 0.0,
        },
        abs=1e-15,
    )
    assert all(e["low"] <= e["mean"] <= e["high"] for e in found["overall"].values())
    # Seed 0: a 1/2, b 0; seed 1: a 1, b 1/2.
    spread = found["over_seeds"]["avg@2"]
    assert spread["mean"] == pytest.approx(0.5)
    assert spread["std"] == pytest.approx(abs(0.75 - 0.25) / 2**0.5)
    assert not any(name.startswith("greedy") for name in found["over_seeds"])
    levels = {value: m["avg@2"]["mean"] for value, m in found["breakdown"]["level"].items()}
    assert levels == {"1": 3 / 4, "2": 1 / 4}
    assert found["verdicts"] == {"CORRECT": 5, "WRONG": 5}


def test_one_seed_has_no_deviation_and_greedy_alone_no_average():
    options = EvaluationOptions(num_samples=0, seeds=(0, 1)).of_protocol(1)
    found = score(answers_of(options), options, max_response_tokens=8)
    assert list(found["overall"]) == [
        *("greedy_pass@1", "greedy_response_length", "greedy_truncated_fraction")
    ]
    assert found["over_seeds"] == {}
    options = EvaluationOptions(num_samples=2, greedy=False).of_protocol(1)
    found = score(answers_of(options), options, max_response_tokens=8)
    assert found["over_seeds"] == {}
    assert "greedy_pass@1" not in found["overall"]


def test_equal_texts_vote_together_and_what_means_the_same_does_too():
    same = {("1/2", "0.5"), ("0.5", "1/2")}
    texts = ["1/2", None, "3", "0.5", "1/2", "3"]
    found = representatives(texts, lambda a, b: (a, b) in same)
    assert found == ["1/2", None, "3", "1/2", "1/2", "3"]


def test_votes_of_mathematics_are_what_the_verifier_calls_equal():
    attempts = [
        completion("a", 0, 0, response=r"so \boxed{\frac{1}{2}}"),
        completion("a", 0, 1, response=r"so \boxed{0.5}"),
        completion("a", 0, 2, response=r"so \boxed{2}", is_correct=False),
        completion("a", 0, 3, response="none", is_correct=False, verdict="UNPARSEABLE"),
    ]
    found = votes().of(problem("a"), attempts)
    assert found == [r"\frac{1}{2}", r"\frac{1}{2}", "2", None]


def test_votes_of_choices_are_letters_and_code_has_none():
    attempts = [completion("a", 0, 0, details={"choice": "B"}), completion("a", 0, 1)]
    assert votes("choice").of(problem("a", "choice"), attempts) == ["B", None]
    assert votes("domain").of(problem("a", "choice"), attempts) == ["B", None]
    assert votes("domain").have([problem("a"), problem("b", "choice")])
    assert not votes("domain").have([problem("a"), problem("b", "code")])
    assert not votes("code").have([problem("a", "code")])
    assert not votes("math", extract="last").have([problem("a")])
    assert not votes("my.own:verify").have([problem("a")])


def test_problems_are_sorted_by_domain_column_or_path():
    problems = [
        problem("a", "math", meta={"level": "hard"}),
        problem("b", "code", meta={"level": "easy"}),
        problem("c", "math", meta=None),
    ]
    ids = {v: [p.problem_id for p in ps] for v, ps in by_field(problems, "meta.level").items()}
    assert ids == {"(none)": ["c"], "easy": ["b"], "hard": ["a"]}
    assert {v: len(ps) for v, ps in by_field(problems, "domain").items()} == {"code": 1, "math": 2}


def test_a_field_that_makes_no_breakdown_is_a_clear_error():
    with pytest.raises(ValueError, match=r"No problem has the field 'levle'.*domain, level"):
        by_field(PROBLEMS, "levle")
    many = [problem(str(i), number=i) for i in range(51)]
    with pytest.raises(ValueError, match="'number' of the breakdown has 51 values"):
        by_field(many, "number")


def test_the_table_shows_metrics_seeds_breakdown_and_what_went_wrong():
    options = EvaluationOptions(num_samples=2, seeds=(0, 1), breakdown=("level",)).of_protocol(1)
    found = score(answers_of(options), options, max_response_tokens=8)
    found["verdicts"]["TIMEOUT"] = 3
    row = {"num_problems": 2, "num_samples": 2, "seeds": [0, 1], "num_ungradeable_answers": 1}
    text = table({"model": "m\x1b", "benchmarks": {"bench": {**row, **found}}})
    assert "model m\\x1b" in text
    assert "bench: 2 problems, 2 sampled attempts at each for 2 seeds" in text
    (line,) = (line for line in text.splitlines() if line.startswith("  avg@2 "))
    assert line.split()[1] == "0.5000"
    assert "0.5000 +- 0.3536" in line
    assert "level = 1: 1 problems\n    avg@2 " in text
    assert "did not decide: {'TIMEOUT': 3}" in text
    assert "gold answers that the verifier refuses: 1" in text
