"""Formulas with units: which have the same value."""

from __future__ import annotations

from fractions import Fraction

from prefix_rft_rllib.envs.verifiers.math_formula import Formula, Number, Operation, Symbol
from prefix_rft_rllib.envs.verifiers.math_structure import Answer, Value
from prefix_rft_rllib.envs.verifiers.math_values import equal
from prefix_rft_rllib.envs.verifiers.math_words import DEGREE, NO_UNIT, PERCENT

_HALF_TURN = Operation("div", (Symbol(r"\pi"), Number(Fraction(180))))
_RADIAN = "radian"


def values_agree(gold: Answer, answer: Answer) -> bool:
    """Tell whether two formulas with units have the same value.

    Two units must be the same or convert into each other; one may be left out. A percentage is the
    number before the sign or a hundredth of it, an angle is degrees or, with pi, radians.
    """
    if not (isinstance(gold, Value) and isinstance(answer, Value)):
        return False
    if gold.unit.powers == answer.unit.powers:
        if gold.unit.size == answer.unit.size:
            return equal(gold.formula, answer.formula)
        return equal(_times(gold.formula, gold.unit.size), _times(answer.formula, answer.unit.size))
    units = {gold.unit.powers, answer.unit.powers}
    if units == {DEGREE.powers, ((_RADIAN, 1),)}:
        return equal(*(_radians(one) for one in (gold, answer)))
    if NO_UNIT.powers not in units:
        return False
    if equal(gold.formula, answer.formula):
        return True
    if PERCENT.powers in units:
        return equal(*(_times(one.formula, _share(one)) for one in (gold, answer)))
    if DEGREE.powers in units and any(_has_pi(one.formula) for one in (gold, answer)):
        return equal(*(_radians(one) for one in (gold, answer)))
    return False


def _times(formula: Formula, factor: Fraction) -> Formula:
    return formula if factor == 1 else Operation("mul", (formula, Number(factor)))


def _share(value: Value) -> Fraction:
    return Fraction(1, 100) if value.unit.powers == PERCENT.powers else Fraction(1)


def _radians(value: Value) -> Formula:
    is_degree = value.unit.powers == DEGREE.powers
    return Operation("mul", (value.formula, _HALF_TURN)) if is_degree else value.formula


def _has_pi(formula: Formula) -> bool:
    if isinstance(formula, Operation):
        return any(map(_has_pi, formula.arguments))
    return formula == Symbol(r"\pi")
