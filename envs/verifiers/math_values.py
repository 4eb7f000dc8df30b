r"""What formulas are worth: exact fractions where possible, else numbers of many digits.

Two formulas are equal if they are equal as numbers or, with variables, at a dozen points that are
chosen by hashing the variables' names. Powers and factorials are not bounded here: the caller
limits time and memory. Runs in worker processes only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from mpmath import mp

from prefix_rft_rllib.envs.verifiers.math_formula import Formula, Number, Operation, Symbol
from prefix_rft_rllib.envs.verifiers.math_operations import (
    ARITHMETIC,
    FUNCTIONS,
    Scalar,
    UndefinedError,
    added,
    determinant,
    matrix_operation,
    multiplied,
    number,
    shape,
)

_DIGITS, _MORE_DIGITS = 50, 120
_TINY, _TINIEST = mp.mpf(10) ** -30, mp.mpf(10) ** -100
_DECIMAL, _DECIMAL_RELATIVE = mp.mpf(10) ** -6, mp.mpf(10) ** -4
_NUM_POINTS, _MIN_VALID_POINTS = 12, 3
_MAX_TERMS = 10_000
_PIECEWISE = frozenset(("abs", "floor", "ceil", "max", "min", "root"))
"""Operations whose formulas may agree near zero, or above it, and nowhere else."""
_SIZES = (5, 30, 200, 1000)

_CONSTANTS: Mapping[str, Callable[[], Scalar]] = {
    r"\pi": lambda: +mp.pi,
    "e": lambda: +mp.e,
    "i": lambda: mp.mpc(0, 1),
    r"\infty": lambda: mp.inf,
}


def symbols_of(formula: Formula) -> frozenset[str]:
    """Return the names of the variables in a formula; constants are none."""
    if isinstance(formula, Symbol):
        return frozenset() if formula.name in _CONSTANTS else frozenset((formula.name,))
    if isinstance(formula, Number):
        return frozenset()
    inner = frozenset[str]().union(*map(symbols_of, formula.arguments))
    if formula.name in ("sum", "prod") and isinstance(formula.arguments[1], Symbol):
        return inner - {formula.arguments[1].name}
    return inner


def has_decimal(formula: Formula) -> bool:
    """True if a decimal stands in the formula: its value may be rounded."""
    if isinstance(formula, Operation):
        return any(map(has_decimal, formula.arguments))
    return isinstance(formula, Number) and not formula.is_exact


def is_complex(formula: Formula) -> bool:
    """True if the imaginary unit stands in the formula."""
    if isinstance(formula, Operation):
        return any(map(is_complex, formula.arguments))
    return formula == Symbol("i")


def canonical(formula: Formula) -> Formula:
    """Return the formula with the parts of sums and products in one order."""
    if not isinstance(formula, Operation):
        return formula
    arguments = [canonical(one) for one in formula.arguments]
    if formula.name in ("add", "mul"):
        flat: list[Formula] = []
        for one in arguments:
            is_same = isinstance(one, Operation) and one.name == formula.name
            flat.extend(one.arguments if is_same and isinstance(one, Operation) else (one,))
        arguments = sorted(flat, key=repr)
    return Operation(formula.name, tuple(arguments))


def equal(one: Formula, other: Formula) -> bool:
    r"""Tell whether two formulas have the same value, for all values of their variables.

    Numbers agree if they agree to 40 digits, or, if a decimal stands in one of them, to 1e-6 and to
    1e-4 of their size.

    Args:
        one: A formula without `\\pm`.
        other: Another.

    Returns:
        True if they are equal wherever both are defined. False if that cannot be told.
    """
    if one == other or canonical(one) == canonical(other):
        return True
    names = symbols_of(one) | symbols_of(other)
    is_rounded = has_decimal(one) or has_decimal(other)
    if not names:
        return _equal_at(one, other, _Evaluation({}, is_real=False), is_rounded) is True
    is_real = not (is_complex(one) or is_complex(other))
    for real in (True, False) if is_real else (False,):
        results = [
            _equal_at(one, other, _Evaluation(point, real), False, is_rounded)
            for point in (*points(names), *far_points(names, one, other))
        ]
        if results.count(True) >= _MIN_VALID_POINTS or False in results:
            return False not in results
    return False


def points(names: frozenset[str]) -> Iterator[dict[str, Fraction]]:
    """Yield values for variables: positive ones first, then of both signs."""
    for index in range(_NUM_POINTS):
        point = {}
        for name in names:
            digest = hashlib.sha256(f"{index} {name}".encode()).digest()
            share = Fraction(int.from_bytes(digest[:4], "big"), 2**32)
            value = Fraction(1, 20) + share * (Fraction(9, 10) if index % 2 else 4)
            is_negative = index >= _NUM_POINTS // 2 and digest[4] % 2
            point[name] = -value if is_negative else value
        yield point


def far_points(names: frozenset[str], *formulas: Formula) -> Iterator[dict[str, Fraction]]:
    """Yield integers and fractions of several sizes and both signs, where formulas have pieces."""
    if not any(map(_has_pieces, formulas)):
        return
    for size in _SIZES:
        for step in (Fraction(0), Fraction(1), Fraction(1, 3)):
            for sign in (1, -1):
                point = {}
                for name in names:
                    digest = hashlib.sha256(f"{size} {name}".encode()).digest()
                    point[name] = sign * (size + digest[0] % size + step)
                yield point


def _has_pieces(formula: Formula) -> bool:
    return isinstance(formula, Operation) and (
        formula.name in _PIECEWISE or any(map(_has_pieces, formula.arguments))
    )


def _equal_at(
    one: Formula, other: Formula, evaluation: _Evaluation, is_rounded: bool, is_loose: bool = False
) -> bool | None:
    """Compare at one point; None if one of the two is not defined there."""
    try:
        with mp.workdps(_DIGITS):
            a, b = _cells(evaluation.of(one)), _cells(evaluation.of(other))
        if len(a) != len(b) or a[0] != b[0]:
            return False
        pairs = list(zip(a[1:], b[1:], strict=True))
        results = [_close(x, y, is_rounded, is_loose) for x, y in pairs]
        if None not in results:
            return all(results)
        with mp.workdps(_MORE_DIGITS):
            more = zip(
                _cells(evaluation.of(one))[1:], _cells(evaluation.of(other))[1:], strict=True
            )
            vanish = [_vanishes(*pair, *exact) for pair, exact in zip(pairs, more, strict=True)]
        return all(vanish[i] if result is None else result for i, result in enumerate(results))
    except (UndefinedError, ZeroDivisionError, OverflowError, ValueError, TypeError):
        return None


def _cells(value: Any) -> list[Any]:
    """Return the shape of a value, None for a scalar, and its entries."""
    if not isinstance(value, tuple):
        return [None, value]
    return [shape(value), *(cell for row in value for cell in row)]


def _close(a: Any, b: Any, is_rounded: bool, is_loose: bool) -> bool | None:
    """Compare two values; None if more digits must decide."""
    if isinstance(a, Fraction) and isinstance(b, Fraction) and not is_rounded:
        return a == b
    with mp.workdps(_DIGITS):
        a, b = number(a), number(b)
        if mp.isinf(a) or mp.isinf(b):
            return bool(a == b)
        size, difference = max(abs(a), abs(b)), abs(a - b)
        if is_rounded:
            return bool(
                difference <= _DECIMAL * (1 + _TINY) and difference <= _DECIMAL_RELATIVE * size
            )
        if is_loose and difference <= mp.mpf(10) ** -9 * size:
            return True
        return None if difference <= max(_TINY, _TINY * size) else False


def _vanishes(a: Any, b: Any, a_more: Any, b_more: Any) -> bool:
    """True if a tiny difference shrinks with more digits: it is rounding and no value."""
    with mp.workdps(_MORE_DIGITS):
        before, after = abs(number(a) - number(b)), abs(number(a_more) - number(b_more))
        size = max(abs(number(a_more)), abs(number(b_more)))
        return bool(after <= max(_TINY * before, _TINIEST * size))


def constant(formula: Formula) -> Scalar:
    """Return the value of a formula without variables.

    Raises:
        UndefinedError: If it has none, or is a matrix or not real.
    """
    try:
        with mp.workdps(_DIGITS):
            value = _Evaluation({}, is_real=False).of(formula)
    except (ZeroDivisionError, OverflowError, ValueError, TypeError) as error:
        raise UndefinedError(str(error)) from error
    if isinstance(value, tuple) or (isinstance(value, mp.mpc) and value.imag != 0):
        raise UndefinedError("no real number")
    return value.real if isinstance(value, mp.mpc) else value


def value_at(formula: Formula, point: Mapping[str, Scalar]) -> Scalar:
    """Return the real value of a formula at a point.

    Raises:
        UndefinedError: If it has none there.
    """
    try:
        with mp.workdps(_DIGITS):
            value = _Evaluation(point, is_real=True).of(formula)
    except (ZeroDivisionError, OverflowError, ValueError, TypeError) as error:
        raise UndefinedError(str(error)) from error
    if isinstance(value, tuple | mp.mpc):
        raise UndefinedError("no real number")
    return value


class _Evaluation:
    """Values of formulas at one point.

    Args:
        point: Values of the variables.
        is_real: True to refuse roots and logarithms of negative numbers.
    """

    def __init__(self, point: Mapping[str, Scalar], is_real: bool):
        self.point, self.is_real = dict(point), is_real

    def of(self, formula: Formula) -> Any:
        if isinstance(formula, Number):
            return formula.value
        if isinstance(formula, Symbol):
            if formula.name in self.point:
                return self.point[formula.name]
            if formula.name in _CONSTANTS:
                return _CONSTANTS[formula.name]()
            raise UndefinedError(f"variable {formula.name}")
        name = formula.name
        if name in ("sum", "prod"):
            return self._large_operator(name, formula.arguments)
        if name in ("matrix", "det"):
            rows = tuple(tuple(map(self.of, _arguments(row))) for row in formula.arguments)
            return rows if name == "matrix" else determinant(rows)
        if name == "call":
            return self._unknown_function(formula.arguments)
        values = [self.of(one) for one in formula.arguments]
        result = self._apply(name, values)
        if not isinstance(result, tuple | Fraction) and mp.isnan(result):
            raise UndefinedError("not a number")
        return result

    def _apply(self, name: str, values: list[Any]) -> Any:
        if any(isinstance(one, tuple) for one in values):
            return matrix_operation(name, values)
        if name in ARITHMETIC:
            return ARITHMETIC[name](values)
        if name in FUNCTIONS:
            result = FUNCTIONS[name](*map(number, values))
            if self.is_real and isinstance(result, mp.mpc):
                raise UndefinedError("not real")
            return result
        if name == "pow":
            return self._power(*values)
        if name == "root":
            return self._root(*values)
        if name == "log":
            value, base = map(number, values)
            if self.is_real and (value <= 0 or base <= 0):
                raise UndefinedError("a logarithm that is not real")
            return mp.log(value) / mp.log(base)
        raise UndefinedError(f"`{name}`")

    def _power(self, base: Scalar, exponent: Scalar) -> Scalar:
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            if base == 0 and exponent <= 0:
                raise UndefinedError("a power of zero")
            if isinstance(base, Fraction):
                return base ** int(exponent)
            return mp.power(base, int(exponent))
        base, exponent = number(base), number(exponent)
        if mp.isinf(exponent):
            raise UndefinedError("an infinite power")
        if self.is_real and base < 0:
            raise UndefinedError("a power that is not real")
        return mp.power(base, exponent)

    def _root(self, value: Scalar, index: Scalar) -> Scalar:
        if not (isinstance(index, Fraction) and index.denominator == 1 and index > 0):
            return self._power(value, Fraction(1) / index)
        degree, value = int(index), number(value)
        if not isinstance(value, mp.mpc) and value < 0:
            if degree % 2:
                return -mp.root(-value, degree)
            if self.is_real:
                raise UndefinedError("a root that is not real")
        return mp.root(value, degree)

    def _large_operator(self, name: str, arguments: Sequence[Formula]) -> Scalar:
        body, index, low, high = arguments
        first, last = self.of(low), self.of(high)
        is_finite = all(isinstance(one, Fraction) and one.denominator == 1 for one in (first, last))
        if not is_finite or last - first >= _MAX_TERMS or not isinstance(index, Symbol):
            raise UndefinedError(f"a {name} that is not finite")
        total: Scalar = Fraction(name == "prod")
        inner = _Evaluation(self.point, self.is_real)
        for step in range(int(first), int(last) + 1):
            inner.point[index.name] = Fraction(step)
            term = inner.of(body)
            total = added([total, term]) if name == "sum" else multiplied([total, term])
        return total

    def _unknown_function(self, arguments: Sequence[Formula]) -> Scalar:
        """Return some number that depends on the function's name and arguments alone."""
        values = [mp.nstr(number(self.of(one)), 25) for one in arguments[1:]]
        digest = hashlib.sha256(repr((arguments[0], values)).encode()).digest()
        return Fraction(int.from_bytes(digest[:8], "big"), 2**62)


def _arguments(row: Formula) -> tuple[Formula, ...]:
    assert isinstance(row, Operation)
    return row.arguments
