r"""Reading gold answers: a bare answer, or a whole solution that marks one."""

from __future__ import annotations

import contextlib
import functools
import re

from prefix_rft_rllib.envs.verifiers.math_answers import MAX_ANSWER_CHARS, boxed_answer, has_content
from prefix_rft_rllib.envs.verifiers.math_prose import is_solution, marked_statement
from prefix_rft_rllib.envs.verifiers.math_reading import read
from prefix_rft_rllib.envs.verifiers.math_structure import Answer
from prefix_rft_rllib.envs.verifiers.math_tokens import UnreadError

_OPERATOR = re.compile(r"\\(?:int|lim)(?![a-zA-Z])")


@functools.lru_cache(maxsize=4096)
def read_gold(gold: str) -> tuple[Answer, ...]:
    r"""Read a gold answer.

    The answer of a whole solution is what its box or its `<answer>` tags hold, or what stands
    behind `####` or "the answer is".

    Args:
        gold: The gold answer.

    Returns:
        Its reading; a second one if it may be a decimal with a comma (`3,5`) as well as a list.

    Raises:
        UnreadError: If it is not understood as a whole.
    """
    text = marked_text(gold)
    if not has_content(text):
        raise UnreadError("no content")
    if len(text) > MAX_ANSWER_CHARS:
        raise UnreadError("too long")
    answers = [read(text)]
    with contextlib.suppress(UnreadError):
        answers.append(read(text, has_decimal_comma=True))
    return tuple(dict.fromkeys(answers))


def marked_text(gold: str) -> str:
    """Return the part of a gold answer that is the answer, the whole for a bare one.

    Raises:
        UnreadError: If it is a solution that marks no answer.
    """
    marked = boxed_answer(gold)
    if marked is not None:
        return marked
    if not is_solution(gold):
        return gold
    statement = marked_statement(gold)
    if statement is None:
        raise UnreadError("a solution that marks no answer")
    return statement


def has_operator(text: str) -> bool:
    """True if a text holds an integral or a limit, which math-verify reads."""
    return _OPERATOR.search(text) is not None


def is_readable(gold: str) -> bool:
    """True if the gold answer is understood as a whole, by the reader here or by math-verify's."""
    with contextlib.suppress(UnreadError):
        read_gold(gold)
        return True
    with contextlib.suppress(UnreadError):
        text = marked_text(gold)
        return has_operator(text) and _is_read_by_library(text)
    return False


def _is_read_by_library(text: str) -> bool:
    # Imported here: SymPy takes seconds, and few answers need it.
    from prefix_rft_rllib.envs.verifiers.math_library import library_formula

    library_formula(text)
    return True
