"""The generated programming problems."""

import random

import gymnasium as gym
import pytest

import prefix_rft_rllib.envs  # noqa: F401  (registers the ids)
from prefix_rft_rllib.envs.toy.toy_code import (
    ProgramProblem,
    generate_rows,
    write_demonstration,
    write_program,
)
from prefix_rft_rllib.preflight import preflight

PROBLEM = ProgramProblem(
    name="Ana", item="pears", clauses=(("finds", 4), ("repeats", 2), ("loses", 9))
)


def test_prompt_program_and_value_by_hand():
    assert PROBLEM.prompt == "Ana has x pears . finds 4 , repeats 2 , loses 9 . How many ?"
    assert write_program(PROBLEM, lambda right: right) == (
        "def f(x):\n # finds 4\n x = x + 4\n # repeats 2\n x = x * 2\n # loses 9\n x = x - 9\n"
        " return x"
    )
    assert PROBLEM.value(10) == 19  # (10 + 4) * 2 - 9


def test_every_clause_of_an_entirely_flawed_demonstration_is_wrong():
    lines = write_demonstration(PROBLEM, random.Random(0), flawed_fraction=1.0).split("\n")
    right = write_program(PROBLEM, lambda right: right).split("\n")
    differ = [a != b for a, b in zip(lines, right, strict=True)]
    assert differ == [False, *[False, True] * 3, False]


def test_rows_are_a_pure_function_and_splits_share_no_clauses():
    train = generate_rows(num_problems=300, seed=0)
    assert generate_rows(num_problems=300, seed=0) == train
    assert generate_rows(num_problems=10, seed=0) == train[:10]
    held_out = generate_rows(num_problems=300, seed=1, split="held_out")
    prompts = [row["prompt"] for row in (*train, *held_out)]
    assert len(set(prompts)) == 600


def test_flaws_change_operations_of_demonstrations_and_nothing_else():
    right, flawed = (generate_rows(num_problems=200, flawed_fraction=f) for f in (0.0, 1.0))
    for one, other in zip(right, flawed, strict=True):
        assert {**one, "demonstration": ""} == {**other, "demonstration": ""}
        assert one["demonstration"] != other["demonstration"]


def test_demonstrations_pass_and_another_operation_does_not():
    env = gym.make("PrefixRFT/ToyCode-v0", data_config={"num_problems": 5}).unwrapped
    problem_set = env.problem_set
    assert problem_set.counts["demonstrations_set_aside"] == 0
    assert preflight(problem_set, progress=False).verdicts == {"CORRECT": 5}
    for problem in problem_set.train:
        (text,) = problem.demonstration_texts
        wrong = text.replace("return x", "return x + 1")
        assert problem_set.grader.grade(wrong, problem) == "WRONG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "`split` must be one of"),
        ({"min_clauses": 6}, "`min_clauses` <= `max_clauses`"),
        ({"flawed_fraction": 30}, "use 0.3 for 30%"),
        ({"num_problems": 0}, "`num_problems` must be a whole number of at least 1"),
        ({"num_problems": 10_000, "min_clauses": 1, "max_clauses": 1}, "more than the generator"),
    ],
)
def test_a_wrong_argument_is_a_clear_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate_rows(**{"num_problems": 5, **arguments})
