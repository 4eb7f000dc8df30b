"""Formulas as trees, and the brackets in their tokens. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import TypeAlias

from prefix_rft_rllib.envs.verifiers.math_spellings import names
from prefix_rft_rllib.envs.verifiers.math_tokens import MAX_DIGITS, Token, UnreadError


@dataclasses.dataclass(frozen=True)
class Number:
    """A number as written.

    Attributes:
        value: Its value.
        is_exact: False for a decimal, which may be rounded.
    """

    value: Fraction
    is_exact: bool = True


@dataclasses.dataclass(frozen=True)
class Symbol:
    r"""A variable, or a constant (`\pi`, `e`, `i`, `\infty`), by its spelling."""

    name: str


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation on formulas.

    Attributes:
        name: "add", "mul", "div", "pow", "neg", "pm", "mp", "root", "factorial", "percent",
            "degree", "matrix", or a function's name.
        arguments: What it works on, in order.
    """

    name: str
    arguments: tuple[Formula, ...]


Formula: TypeAlias = Number | Symbol | Operation


CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\langle": r"\rangle"}
GREEK = frozenset(
    rf"\{name}"
    for name in names(
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau "
        "upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega "
        "hbar ell pi infty"
    )
)
ONE_ARGUMENT = frozenset(
    rf"\{name}"
    for name in names(
        "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth "
        "sech csch cis log ln exp"
    )
)
MANY_ARGUMENTS = frozenset((r"\max", r"\min", r"\gcd", r"\lcm"))


def quotient(above: Formula, below: Formula) -> Formula:
    """Return a quotient.

    Raises:
        UnreadError: If the number zero stands below.
    """
    if isinstance(below, Number) and below.value == 0:
        raise UnreadError("a division by zero")
    return Operation("div", (above, below))


def number(text: str, is_repeating: bool = False) -> Number:
    """Return the number that digits spell; `0.1(6)` if `is_repeating`.

    Raises:
        UnreadError: If there are too many digits.
    """
    if len(text) > MAX_DIGITS:
        raise UnreadError("a number that is too long")
    if not is_repeating:
        return Number(Fraction(text), is_exact="." not in text)
    before, _, period = text.rstrip(")").partition("(")
    whole, _, digits = before.partition(".")
    scale = 10 ** len(digits)
    repeated = Fraction(int(period), (10 ** len(period) - 1) * scale)
    return Number(Fraction(int((whole + digits) or "0"), scale) + repeated)


MATRICES = frozenset(names("matrix pmatrix bmatrix Bmatrix vmatrix smallmatrix array"))


def matching(tokens: Sequence[Token], opening: int) -> int | None:
    """Return the index of the token that closes the bracket at `opening`, or None.

    Round and square brackets close each other, as in `(0, 1]`.
    """
    stack: list[str] = []
    for index in range(opening, len(tokens)):
        token = tokens[index]
        if token.kind in ("begin", "end"):
            name = token.text
            if token.kind == "begin":
                stack.append(name)
            elif not stack or stack.pop() != name:
                return None
        elif token.kind in ("sign", "command") and token.text in CLOSING:
            stack.append(CLOSING[token.text])
        elif token.kind in ("sign", "command") and token.text in CLOSING.values():
            if not stack:
                return None
            expected = stack.pop()
            if token.text != expected and not {token.text, expected} <= {")", "]"}:
                return None
        if not stack:
            return index
    return None


def split(tokens: Sequence[Token], separators: Sequence[str]) -> list[Sequence[Token]]:
    """Cut at separators outside all brackets and bars' pairs of brackets.

    Raises:
        UnreadError: If brackets do not match.
    """
    parts, start, index = [], 0, 0
    while index < len(tokens):
        token = tokens[index]
        is_open = token.kind == "begin" or (
            token.kind in ("sign", "command") and token.text in CLOSING
        )
        if is_open:
            end = matching(tokens, index)
            if end is None:
                raise UnreadError("a bracket that is not closed")
            index = end
        elif token.text in separators and token.kind in ("sign", "command", "word"):
            parts.append(tokens[start:index])
            start = index + 1
        index += 1
    return [*parts, tokens[start:]]


def matrix_rows(tokens: Sequence[Token]) -> list[list[Sequence[Token]]]:
    """Return the cells of the rows of an environment."""
    rows = [row for row in split(tokens, (r"\\",)) if row]
    return [split(row, ("&",)) for row in rows]
