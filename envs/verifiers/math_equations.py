"""Equations and inequalities: what they state, and which are the same."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from prefix_rft_rllib.envs.verifiers.math_formula import Formula, Number, Operation
from prefix_rft_rllib.envs.verifiers.math_signs import has_operation
from prefix_rft_rllib.envs.verifiers.math_structure import Answer, Relation
from prefix_rft_rllib.envs.verifiers.math_values import (
    UndefinedError,
    constant,
    equal,
    points,
    symbols_of,
    value_at,
)

_UNKNOWNS = frozenset("xyztw")
_ALGEBRAIC = frozenset(("add", "mul", "div", "pow", "neg", "root", "pm", "percent", "abs"))


def is_numeric(relation: Relation) -> bool:
    """True if there is no variable on either side."""
    return not symbols_of(relation.left) and not symbols_of(relation.right)


def states_value(relation: Relation) -> bool:
    r"""True if the left side is what an answer may give the value of: `m+n`, `\sin x`, `12+30`.

    `2x = 10`, `x+y = 5`, `a^2+b^2 = 4` and `a+b = 0` are equations: they do not say that the answer
    is 10, say. The letters that stand for unknowns in equations are x, y, z, t and w.
    """
    names = symbols_of(relation.left)
    if not names:
        return is_numeric(relation)
    if len(names) == 1:
        return isinstance(relation.left, Operation) and relation.left.name not in _ALGEBRAIC
    is_equation = names & _UNKNOWNS or has_operation(relation.left, "pow")
    return not is_equation and relation.right != Number(Fraction(0))


def states_number(relation: Relation) -> bool:
    """True if the left side is what an answer may give the value of, and that is a number."""
    return not symbols_of(relation.right) and states_value(relation)


def equations_agree(gold: Answer, answer: Answer) -> bool:
    """Tell whether both are equations with the same solutions, up to a factor."""
    if not (isinstance(gold, Relation) and isinstance(answer, Relation)):
        return False
    return are_proportional(gold, answer, needs_positive=False)


def are_proportional(gold: Relation, answer: Relation, needs_positive: bool) -> bool:
    """Tell whether the differences of the sides have one ratio, other than zero, everywhere."""
    differences = [
        Operation("add", (one.left, Operation("neg", (one.right,)))) for one in (gold, answer)
    ]
    names = symbols_of(differences[0])
    if not names or names != symbols_of(differences[1]):
        return False
    ratio: Formula | None = None
    for point in points(names):
        try:
            first, second = (value_at(one, point) for one in differences)
        except UndefinedError:
            continue
        if not (isinstance(first, Fraction) and isinstance(second, Fraction)):
            ratio = ratio or _ratio_at(differences, point)
            break
        if first == 0 or second == 0 or (ratio is not None and Number(second / first) != ratio):
            return False
        ratio = Number(second / first)
    if ratio is None or (needs_positive and constant(ratio) <= 0):
        return False
    return equal(Operation("mul", (differences[0], ratio)), differences[1])


def _ratio_at(differences: Sequence[Formula], point: dict[str, Fraction]) -> Formula | None:
    """Return the ratio at a point as a formula, if it is defined and not zero."""
    try:
        first, second = (_number_of(value_at(one, point)) for one in differences)
    except UndefinedError:
        return None
    if first == 0 or second == 0:
        return None
    return Number(second / first)


def _number_of(value: Any) -> Fraction:
    if isinstance(value, Fraction):
        return value
    sign, mantissa, exponent, _ = value._mpf_
    return Fraction((-1) ** sign * mantissa) * Fraction(2) ** exponent
