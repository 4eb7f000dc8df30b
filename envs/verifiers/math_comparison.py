r"""Comparing a candidate answer with the gold answer. Runs in worker processes only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from math_verify.grader import verify
from sympy import Basic, Eq, Expr, FiniteSet, Float, MatrixBase, Symbol, Tuple, UnevaluatedExpr

from prefix_rft_rllib.envs.verifiers.math_answers import has_content
from prefix_rft_rllib.envs.verifiers.math_reading import (
    Expression,
    bare_answer,
    is_complex_formula,
    is_prose,
    read_formula,
    read_prose,
    with_imaginary_unit,
)

# math-verify rounds floats to 6 decimals and treats differences below 1e-15 as zero,
# whatever the size of the numbers: 1/2^99 would equal 1/2^98. Equal numbers must also
# agree relative to their size.
_RELATIVE_TOLERANCE = 1e-4
_TEXT_COMMAND = re.compile(r"\\(?:text|textnormal|textbf|textit|textrm|mathrm|mbox)\s*\{([^{}]*)\}")
_BASED_NUMBER = re.compile(
    r"(?:[a-zA-Z]\s*=\s*)?(-?[0-9A-Za-z.,]*[0-9A-Z])_\{?(?:\\text\{)?(\d+|[a-z]{3,9})\}?\}?"
)


def grade(job: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one job of the worker pool.

    Args:
        job: `operation` and its texts: "compare" (a bare `candidate` against `gold`),
            "compare_prose" (the candidate may stand in a sentence), "compare_last" (the
            last expression of a response), "check" (is `gold` readable).

    Returns:
        `verdict` (a `Verdict` name), or `readable` for "check".
    """
    gold = job["gold"]
    if job["operation"] == "check":
        return {"readable": is_readable(gold)}
    candidate = job["candidate"]
    if candidate == gold and has_content(gold):
        return {"verdict": "CORRECT"}
    if job["operation"] == "compare":
        return {"verdict": compare_bare(candidate, gold)}
    if job["operation"] == "compare_prose" and not is_prose(candidate):
        verdict = compare_bare(candidate, gold)
        if verdict != "UNPARSEABLE":
            return {"verdict": verdict}
    return {"verdict": compare_prose(candidate, gold)}


def is_readable(gold: str) -> bool:
    """True if the gold answer can be read, as a formula, as words or as a sentence."""
    text = bare_answer(gold)
    if not has_content(text):
        return False
    is_complex = is_complex_formula(text)
    return _words(text) is not None or bool(_gold_expressions(gold, text, is_complex))


def compare_bare(candidate: str, gold: str) -> str:
    """Compare two answers, the candidate read whole; return the verdict's name."""
    candidate_text, gold_text = bare_answer(candidate), bare_answer(gold)
    if not has_content(candidate_text):
        return "UNPARSEABLE"
    if candidate_text == gold_text:
        return "CORRECT"
    if _number_base(candidate_text) != _number_base(gold_text):
        return "WRONG"
    if _same_words(candidate_text, gold_text):
        return "CORRECT"
    is_complex = is_complex_formula(candidate_text) or is_complex_formula(gold_text)
    golds = _gold_expressions(gold, gold_text, is_complex)
    if not golds and _words(gold_text) is None:
        return "ERROR"
    expression = read_formula(candidate_text, is_complex)
    if expression is None:
        return "UNPARSEABLE"
    return "CORRECT" if any(equal(one, expression) for one in golds) else "WRONG"


def compare_prose(response: str, gold: str) -> str:
    """Compare the expression math-verify finds in a response; return the verdict's name."""
    if not has_content(response):
        return "UNPARSEABLE"
    found = read_prose(response)
    expressions = [one for one in found if isinstance(one, (Basic, MatrixBase))]
    spellings = [one for one in found if isinstance(one, str)]
    gold_text = bare_answer(gold)
    for spelling in map(bare_answer, spellings):
        if spelling == gold_text or _same_words(spelling, gold_text):
            return "CORRECT"
        if _number_base(spelling) != _number_base(gold_text):
            return "WRONG"
    if not expressions:
        return "UNPARSEABLE"
    is_complex = is_complex_formula(gold_text)
    if is_complex:
        expressions = [with_imaginary_unit(one) for one in expressions]
    golds = _gold_expressions(gold, gold_text, is_complex)
    return "CORRECT" if any(equal(g, e) for g in golds for e in expressions) else "WRONG"


def _gold_expressions(gold: str, gold_text: str, is_complex: bool) -> list[Expression]:
    expression = None if is_prose(gold) else read_formula(gold_text, is_complex)
    if expression is not None:
        return [expression]
    return [one for one in read_prose(gold) if isinstance(one, (Basic, MatrixBase))]


def _number_base(text: str) -> str | None:
    """Return the base of a number such as `204_5`, None for anything else."""
    match = _BASED_NUMBER.fullmatch(text)
    return match.group(2) if match and re.search(r"\d", match.group(1)) else None


def _same_words(one: str, other: str) -> bool:
    """True if two answers are the same words, up to text commands, blanks and case."""
    words = _words(one)
    return words is not None and words == _words(other)


def _words(text: str) -> str | None:
    r"""Return the words of a text answer, or None if it is a formula.

    Braces, powers and commands make a formula: dropping them would make `\frac{1}{23}` and
    `\frac{12}{3}` the same.
    """
    text = _TEXT_COMMAND.sub(r"\1", text)
    text = " ".join(re.sub(r"\\ |~", " ", text).split()).casefold().rstrip(".")
    if re.search(r"[\\{}^_=+*/<>]", text) or not re.search(r"[^\W\d_]", text):
        return None
    return text[1:-1] if re.fullmatch(r"\([a-z]\)", text) else text


def equal(gold: Expression, candidate: Expression) -> bool:
    """math-verify's comparison, with numbers also equal relative to their size."""
    gold, candidate = _as_decimal(gold), _as_decimal(candidate)
    is_equal = verify(gold, candidate, timeout_seconds=None)
    return is_equal and _numbers_agree(gold, candidate)


def _as_decimal(expression: Expression) -> Expression:
    r"""Turn a number that contains a decimal into one decimal: `2.5 \times 10^{-3}`.

    The library rounds single decimals only and compares all else to 15 digits.
    """
    if not isinstance(expression, Expr) or not expression.has(Float):
        return expression
    is_percentage = expression.has(UnevaluatedExpr)
    return expression if expression.free_symbols or is_percentage else expression.evalf()


def _numbers_agree(gold: Expression, candidate: Expression) -> bool:
    """False if a number of `gold` has no counterpart of its size in `candidate`."""
    gold_numbers, candidate_numbers = list(_numbers(gold)), list(_numbers(candidate))
    if not gold_numbers or not candidate_numbers:
        return True
    return all(any(_close(one, other) for other in candidate_numbers) for one in gold_numbers)


def _numbers(expression: Any) -> Iterable[Any]:
    """Yield the numeric values an answer consists of: itself, or its elements."""
    if isinstance(expression, MatrixBase):
        elements: Iterable[Any] = expression.flat()
    elif isinstance(expression, (FiniteSet, Tuple)):
        elements = expression.args
    elif isinstance(expression, Eq) and isinstance(expression.lhs, Symbol):
        elements = (expression.rhs,)
    else:
        if isinstance(expression, Basic) and not expression.free_symbols:
            yield expression
        return
    for element in elements:
        yield from _numbers(element)


def _close(one: Any, other: Any) -> bool:
    try:
        a, b = one.evalf(30), other.evalf(30)
        if not (a.is_number and b.is_number and a.is_finite and b.is_finite):
            return True
        if a == b or min(_digits(a), _digits(b)) <= 1:
            return True
        difference, size = abs(a - b), max(abs(a), abs(b))
        # 28\% equals 28 and 0.28: the library's reading of a percentage, kept.
        ratios = (difference, abs(100 * a - b), abs(a - 100 * b))
        return any(bool(one <= _RELATIVE_TOLERANCE * size) for one in ratios)
    except MemoryError:
        raise
    except Exception:
        return True


def _digits(value: Any) -> int:
    """Binary digits known of a value; 1 marks a difference that cancelled completely."""
    return min((part._prec for part in value.atoms() if hasattr(part, "_prec")), default=99)
