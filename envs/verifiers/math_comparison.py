r"""One job of the worker pool: read the gold answer and the candidate, compare them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefix_rft_rllib.envs.verifiers.math_agreement import agree
from prefix_rft_rllib.envs.verifiers.math_answers import boxed_answer
from prefix_rft_rllib.envs.verifiers.math_golds import (
    has_operator,
    is_readable,
    marked_text,
    read_gold,
)
from prefix_rft_rllib.envs.verifiers.math_library import (
    agree_by_library,
    library_formula,
)
from prefix_rft_rllib.envs.verifiers.math_prose import is_prose, last_statement
from prefix_rft_rllib.envs.verifiers.math_reading import read
from prefix_rft_rllib.envs.verifiers.math_structure import Answer
from prefix_rft_rllib.envs.verifiers.math_tokens import UnreadError


def grade(job: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one job of the worker pool.

    Args:
        job: `operation` and its texts: "compare" (a bare `candidate` against `gold`),
            "compare_prose" (the candidate may stand in a sentence), "compare_last" (the
            last answer of a response), "check" (is `gold` readable).

    Returns:
        `verdict` (a `Verdict` name), or `readable` for "check".
    """
    gold = job["gold"]
    if job["operation"] == "check":
        return {"readable": is_readable(gold)}
    compare = {
        "compare": compare_bare,
        "compare_prose": compare_prose,
        "compare_last": compare_last,
    }[job["operation"]]
    return {"verdict": compare(job["candidate"], gold)}


def compare_bare(candidate: str, gold: str) -> str:
    """Compare two answers, both read whole; return the verdict's name."""
    try:
        golds = read_gold(gold)
    except UnreadError:
        return library_verdict(candidate, gold) or "ERROR"
    if candidate.strip() == gold.strip():
        return "CORRECT"
    verdict = _verdict(golds, candidate)
    return (library_verdict(candidate, gold) or verdict) if verdict == "UNPARSEABLE" else verdict


def library_verdict(candidate: str, gold: str) -> str | None:
    r"""Compare formulas of which one holds an integral or a limit; return the verdict's name.

    Returns:
        None where the gold answer is not understood, or neither holds one.
    """
    try:
        gold_text = marked_text(gold)
        if not (has_operator(gold_text) or has_operator(candidate)):
            return None
        expected = library_formula(gold_text)
    except UnreadError:
        return None
    try:
        return "CORRECT" if agree_by_library(expected, library_formula(candidate)) else "WRONG"
    except UnreadError:
        return "UNPARSEABLE"


def compare_prose(candidate: str, gold: str) -> str:
    """Compare an answer, or a sentence that states one; return the verdict's name."""
    marked = boxed_answer(candidate)
    try:
        golds = read_gold(gold)
    except UnreadError:
        return library_verdict(marked or candidate, gold) or "ERROR"
    if marked is not None:
        return _verdict(golds, marked)
    verdict = _verdict(golds, candidate)
    if verdict == "CORRECT" or not is_prose(candidate):
        return verdict
    return _verdict_of_last(golds, candidate)


def compare_last(response: str, gold: str) -> str:
    """Compare the last answer that a response states; return the verdict's name."""
    try:
        golds = read_gold(gold)
    except UnreadError:
        statement = last_statement(response)
        return library_verdict(statement.text if statement else "", gold) or "ERROR"
    return _verdict_of_last(golds, response)


def _verdict_of_last(golds: tuple[Answer, ...], response: str) -> str:
    statement = last_statement(response)
    if statement is None:
        return "UNPARSEABLE"
    return _verdict(golds, statement.text, statement.has_decimal_comma)


def _verdict(golds: tuple[Answer, ...], candidate: str, has_decimal_comma: bool = False) -> str:
    """Compare with all readings of a gold answer; a decimal comma needs one in the gold."""
    try:
        answers = [read(candidate, has_decimal_comma)]
        if len(golds) > 1:
            answers.append(read(candidate, has_decimal_comma=True))
    except UnreadError:
        return "UNPARSEABLE"
    is_correct = any(agree(gold, answer) for gold in golds for answer in answers)
    return "CORRECT" if is_correct else "WRONG"
