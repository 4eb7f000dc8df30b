"""Rows as public libraries store them, and functions that give rows."""

from collections.abc import Iterator
from typing import Any

SYSTEM = {"role": "system", "content": "Be brief ."}
USER = {"role": "user", "content": "What is 2 + 3 ?"}
ASSISTANT = {"role": "assistant", "content": "2 + 3 = 5 so \\boxed{5}"}
VERL = {
    "data_source": "openai/gsm8k",
    "prompt": [USER],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "5"},
    "extra_info": {"index": 0, "split": "train"},
}
LUFFY = {**VERL, "prompt": [SYSTEM, USER], "target": [ASSISTANT]}
OPENR1 = {
    "problem": "What is 2 + 3 ?",
    "answer": "5",
    "solution": "5, since 2 + 3 = 5.",
    "uuid": "u-1",
    "generations": ["2 + 3 = 5 so \\boxed{5}", "2 + 3 = 6 so \\boxed{6}"],
    "correctness_math_verify": [True, False],
    "correctness_llama": None,
    "messages": [USER, ASSISTANT],
}
TRL = {"prompt": [USER], "completion": [ASSISTANT], "solution": "5"}


def rows(num_rows: int = 3, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Sums, with the summands beside the fields."""
    for number in range(num_rows):
        summands = [number + seed, 3]
        answer = str(sum(summands))
        yield {
            "prompt": f"What is {summands[0]} + {summands[1]} ?",
            "answer": answer,
            "demonstration": f"so \\boxed{{{answer}}}",
            "summands": summands,
        }


def failing_rows() -> Iterator[dict[str, Any]]:
    yield from rows(2)
    raise KeyError("no more")


def texts_for_rows() -> list[Any]:
    return [*rows(1), "What is 2 + 3 ?"]


def no_rows() -> list[Any]:
    return []


def nothing() -> None:
    return None


NOT_A_FUNCTION = 3
