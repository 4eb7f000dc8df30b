"""Arithmetic on exact fractions, numbers of many digits and matrices of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from mpmath import mp

from prefix_rft_rllib.envs.verifiers.math_spellings import names

Scalar = Any
"""A `Fraction`, or mpmath's real or complex number."""
Matrix = tuple[tuple[Scalar, ...], ...]
_MAX_SIZE = 12


class UndefinedError(ValueError):
    """The formula has no value here."""


def number(value: Scalar) -> Any:
    """Return mpmath's number for a scalar, at the present precision."""
    if isinstance(value, Fraction):
        return mp.mpf(value.numerator) / value.denominator
    return value


def shape(matrix: Matrix) -> tuple[int, int]:
    """Return the numbers of rows and columns."""
    return len(matrix), len(matrix[0])


def added(values: Sequence[Scalar]) -> Scalar:
    """Return the sum of scalars, exact for fractions."""
    total = values[0]
    for value in values[1:]:
        is_exact = isinstance(total, Fraction) and isinstance(value, Fraction)
        total = total + value if is_exact else number(total) + number(value)
    return total


def multiplied(values: Sequence[Scalar]) -> Scalar:
    """Return the product of scalars, exact for fractions."""
    total = values[0]
    for value in values[1:]:
        is_exact = isinstance(total, Fraction) and isinstance(value, Fraction)
        total = total * value if is_exact else number(total) * number(value)
    return total


def _divided(values: Sequence[Scalar]) -> Scalar:
    above, below = values
    if below == 0:
        raise UndefinedError("a division by zero")
    is_exact = isinstance(above, Fraction) and isinstance(below, Fraction)
    return above / below if is_exact else number(above) / number(below)


def _factorial(values: Sequence[Scalar]) -> Scalar:
    (value,) = values
    if isinstance(value, Fraction) and value.denominator == 1:
        if value < 0:
            raise UndefinedError("a factorial of a negative number")
        return Fraction(math.factorial(int(value)))
    return mp.gamma(number(value) + 1)


def _binomial(values: Sequence[Scalar]) -> Scalar:
    if all(isinstance(one, Fraction) and one.denominator == 1 and one >= 0 for one in values):
        return Fraction(math.comb(*map(int, values)))
    return mp.binomial(*map(number, values))


def _integers(function: Callable[..., int]) -> Callable[[Sequence[Scalar]], Scalar]:
    def apply(values: Sequence[Scalar]) -> Scalar:
        if not all(isinstance(one, Fraction) and one.denominator == 1 for one in values):
            raise UndefinedError("no integers")
        return Fraction(function(*map(int, values)))

    return apply


def _rounded(function: Callable[[Any], Any]) -> Callable[[Sequence[Scalar]], Scalar]:
    def apply(values: Sequence[Scalar]) -> Scalar:
        (value,) = values
        if isinstance(value, mp.mpc):
            raise UndefinedError("not real")
        return Fraction(int(function(value)))

    return apply


def _extreme(function: Callable[..., Any]) -> Callable[[Sequence[Scalar]], Scalar]:
    return lambda values: function(values, key=number)


ARITHMETIC: Mapping[str, Callable[[Sequence[Scalar]], Scalar]] = {
    "add": added,
    "mul": multiplied,
    "div": _divided,
    "neg": lambda values: -values[0],
    "abs": lambda values: abs(values[0]),
    "percent": lambda values: _divided([values[0], Fraction(100)]),
    "degree": lambda values: number(values[0]) * mp.pi / 180,
    "factorial": _factorial,
    "binom": _binomial,
    "gcd": _integers(math.gcd),
    "lcm": _integers(math.lcm),
    "floor": _rounded(lambda value: mp.floor(number(value))),
    "ceil": _rounded(lambda value: mp.ceil(number(value))),
    "max": _extreme(max),
    "min": _extreme(min),
}


def _ln(value: Any) -> Any:
    if value == 0:
        raise UndefinedError("the logarithm of zero")
    return mp.log(value)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(mp, name) for name in (names("sin cos tan cot sec csc sinh cosh tanh"))},
    **{name: getattr(mp, name) for name in ("coth", "sech", "csch", "exp")},
    **{
        f"arc{name}": getattr(mp, f"a{name}") for name in ("sin", "cos", "tan", "cot", "sec", "csc")
    },
}
FUNCTIONS = {**FUNCTIONS, "ln": _ln, "cis": mp.expj}


def matrix_operation(name: str, values: list[Any]) -> Any:
    """Return the result of an operation on matrices and scalars.

    Raises:
        UndefinedError: If there is no such operation or the sizes do not fit.
    """
    first = values[0]
    if name == "neg":
        return _scaled(first, Fraction(-1))
    if name == "add":
        if not all(isinstance(one, tuple) and shape(one) == shape(first) for one in values):
            raise UndefinedError("a sum of matrices of different size")
        return tuple(
            tuple(added(cells) for cells in zip(*rows, strict=True))
            for rows in zip(*values, strict=True)
        )
    if name == "div" and not isinstance(values[1], tuple):
        return _scaled(first, _divided([Fraction(1), values[1]]))
    if name == "mul":
        result = first
        for value in values[1:]:
            result = _matrix_product(result, value)
        return result
    if (
        name == "pow"
        and isinstance(values[1], Fraction)
        and values[1].denominator == 1
        and 1 <= values[1] <= 100
    ):
        result = first
        for _ in range(int(values[1]) - 1):
            result = _matrix_product(result, first)
        return result
    raise UndefinedError(f"`{name}` of a matrix")


def _scaled(matrix: Matrix, factor: Scalar) -> Matrix:
    return tuple(tuple(multiplied([cell, factor]) for cell in row) for row in matrix)


def _matrix_product(left: Any, right: Any) -> Any:
    if not isinstance(left, tuple) or not isinstance(right, tuple):
        if isinstance(left, tuple):
            return _scaled(left, right)
        return _scaled(right, left) if isinstance(right, tuple) else multiplied([left, right])
    if shape(left)[1] != shape(right)[0]:
        raise UndefinedError("a product of matrices that do not fit")
    columns = list(zip(*right, strict=True))
    return tuple(
        tuple(
            added([multiplied([a, b]) for a, b in zip(row, column, strict=True)])
            for column in columns
        )
        for row in left
    )


def determinant(rows: Matrix) -> Scalar:
    """Return the determinant of a small square matrix."""
    if len(rows) != len(rows[0]) or len(rows) > _MAX_SIZE // 2:
        raise UndefinedError("a determinant of no small square matrix")
    if len(rows) == 1:
        return rows[0][0]
    terms = []
    for column, cell in enumerate(rows[0]):
        minor = tuple(row[:column] + row[column + 1 :] for row in rows[1:])
        terms.append(multiplied([Fraction((-1) ** column), cell, determinant(minor)]))
    return added(terms)
