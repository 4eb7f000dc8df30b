"""Verifiers for tests, reached by import path."""

from prefix_rft_rllib.envs.verifiers.math_answers import final_box
from prefix_rft_rllib.envs.verifiers.verdict import Verdict

calls: list[str] = []


def same_box(response: str, problem) -> Verdict:
    """Compare the last box with the answer as text; remembers what it was asked."""
    calls.append(response)
    box = final_box(response)
    if box is None:
        return Verdict.UNPARSEABLE
    return Verdict.CORRECT if box == problem.answer else Verdict.WRONG


def share_of_length(response: str, problem) -> float:
    return 0.25 if final_box(response) == problem.answer else -0.5


def broken(response: str, problem) -> Verdict:
    raise RuntimeError("out of order")


def wordy(response: str, problem) -> str:
    return "right"


def truthy(response: str, problem) -> bool:
    return True


def not_a_number(response: str, problem) -> float:
    return float("nan")
