r"""What the own reader has no grammar for, read and compared by math-verify: `\int_0^1 x\,dx`.

Integrals, limits and derivatives are read as a whole or not at all, too: math-verify's `parse`
would take a number out of a formula it cannot read, so the text goes straight to its LaTeX parser,
and what comes back must account for every number and letter of the text. Runs in worker processes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from latex2sympy2_extended.latex2sympy2 import latex2sympy
from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex
from math_verify.grader import verify
from sympy import E, Expr, I, Number, Symbol, preorder_traversal

from prefix_rft_rllib.envs.verifiers.math_formula import GREEK, ONE_ARGUMENT
from prefix_rft_rllib.envs.verifiers.math_plain import stripped
from prefix_rft_rllib.envs.verifiers.math_spellings import names
from prefix_rft_rllib.envs.verifiers.math_tokens import UnreadError

# Units off: the library's list strips bare letters.
_NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none"
)
_RELATIVE_TOLERANCE = 1e-9
_COMMANDS = frozenset(
    (
        *GREEK,
        *ONE_ARGUMENT,
        *(f"\\{name}" for name in names("int lim sum prod to rightarrow infty pi cdot times")),
        *(f"\\{name}" for name in names("frac dfrac tfrac sqrt left right quad qquad")),
    )
)
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_BLANK = re.compile(r"\\[,;:! ]|~")
# Nothing else is written: no primes, dots, words, relations, lists, bars. No capital letters: the
# parser makes them small.
_PLAIN = re.compile(r"[a-z0-9\s{}()\[\]+\-*/^_.]*")
_UPRIGHT_D = re.compile(r"\\(?:mathrm|rm|text)\s*\{\s*d\s*\}")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_DIFFERENTIAL = re.compile(r"(?<![a-zA-Z])d(?=\s*[a-zA-Z](?![a-zA-Z]))")


def library_formula(text: str) -> Expr:
    r"""Read a formula with math-verify's parser.

    Args:
        text: A bare answer, `\int_0^1 x\,dx`.

    Returns:
        SymPy's expression.

    Raises:
        UnreadError: If the text is more than a formula, or is not accounted for in the expression.
        MemoryError: If the worker's memory limit is reached.
    """
    text = _UPRIGHT_D.sub(" d", _BLANK.sub(" ", stripped(text)))
    if not set(_COMMAND.findall(text)) <= _COMMANDS or "\\\\" in text:
        raise UnreadError("a command that is no part of a formula")
    if not _PLAIN.fullmatch(_COMMAND.sub(" ", text)):
        raise UnreadError("more than a formula")
    latex = normalize_latex(text, _NORMALIZATION)
    try:
        expression = latex2sympy(
            latex, is_real=True, convert_degrees=False, normalization_config=None
        )
    except MemoryError:
        raise
    except Exception as error:  # The parser says "not understood" in many ways.
        raise UnreadError("math-verify does not read it") from error
    if not isinstance(expression, Expr) or not _is_accounted_for(latex, expression):
        raise UnreadError("a part of the text is lost")
    return expression


def _is_accounted_for(latex: str, expression: Expr) -> bool:
    """True if the expression holds every number of a text, as often, and every letter."""
    written = Counter(float(digits) for digits in _NUMBER.findall(latex))
    if written - Counter(_numbers(expression)):
        return False
    letters = set(re.findall(r"[a-zA-Z]", _COMMAND.sub(" ", _DIFFERENTIAL.sub(" ", latex))))
    known = {letter for symbol in expression.atoms(Symbol) for letter in str(symbol)}
    known |= {"e"} if expression.has(E) or "exp" in str(expression) else set()
    known |= {"i"} if expression.has(I) else set()
    return letters <= known


def _numbers(expression: Expr) -> Iterator[float]:
    for node in preorder_traversal(expression):
        if isinstance(node, Number) and node.is_finite:
            yield float(abs(node))
            if node.is_Rational and not node.is_Integer:
                yield float(abs(node.p))
                yield float(node.q)


def agree_by_library(gold: Expr, answer: Expr) -> bool:
    """Tell whether two expressions are equal, for math-verify and as numbers.

    Args:
        gold: The gold answer.
        answer: The answer.
    """
    if not verify(gold, answer, timeout_seconds=None):
        return False
    if gold.free_symbols or answer.free_symbols:
        return True
    values = gold.evalf(30), answer.evalf(30)
    if not all(value.is_number and value.is_finite for value in values):
        return bool(gold.doit() == answer.doit())
    difference, size = abs(values[0] - values[1]), max(map(abs, values))
    return bool(difference <= _RELATIVE_TOLERANCE * max(size, 1))
