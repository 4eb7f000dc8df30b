"""Verifiers for tests, reached by import path."""

import signal
import threading

from prefix_rft_rllib.envs.verifiers.math_answers import final_box
from prefix_rft_rllib.envs.verifiers.verdict import Verdict

calls: list[str] = []
calling_threads: list[threading.Thread] = []


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


def undecided(response: str, problem) -> Verdict:
    """Box 7 takes too long and box 8 breaks the verifier; else like `same_box`."""
    if final_box(response) == "7":
        return Verdict.TIMEOUT
    if final_box(response) == "8":
        raise RuntimeError("out of order")
    return same_box(response, problem)


def by_signal(response: str, problem) -> Verdict:
    """Set a signal handler as math-verify's own time limit does: an error in other threads."""
    calling_threads.append(threading.current_thread())
    signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGALRM))
    return same_box(response, problem)


def as_told(response: str, problem, answer: object) -> object:
    """Answer with what the configuration says, whatever it is."""
    return answer


def countdown(response: str, problem) -> Verdict:
    """Accept sums of exactly the numbers that the row's `meta` has; uses its list up."""
    numbers = problem.extra["meta"]["numbers"]
    for part in (final_box(response) or "").split(" + "):
        if not part.isdigit() or int(part) not in numbers:
            return Verdict.WRONG
        numbers.remove(int(part))
    return Verdict.WRONG if numbers else Verdict.CORRECT
