"""Rows of three small problems, and short ways to load them."""

import pytest

from prefix_rft_rllib.envs.problems import load_problem_set

SAME_BOX = "tests.envs.fake_verifiers:same_box"
ROWS = [
    {
        "id": "a",
        "prompt": "What is 2 + 3 ?",
        "answer": "5",
        "demonstration": "2 + 3 = 5 so \\boxed{5}",
    },
    {"id": "b", "prompt": "What is 3 + 9 ?", "answer": "12", "demonstration": None},
    {
        "id": "c",
        "prompt": "What is 34 ?",
        "answer": "34",
        "demonstrations": ["34 = \\boxed{34}", "é = \\boxed{34} ."],
    },
]


def load(config, **changes):
    return load_problem_set({**config, **changes})


def error_of(config, **changes) -> str:
    with pytest.raises(ValueError) as caught:
        load(config, **changes)
    return str(caught.value)


def texts(problem_set, rows):
    return [problem_set.tokenizer.decode(ids) for ids in rows]
