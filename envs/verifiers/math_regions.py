r"""Sets of real numbers as sorted intervals: inequalities, intervals and unions made comparable.

Runs in worker processes only.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from mpmath import mp

from prefix_rft_rllib.envs.verifiers.math_formula import Formula, Number, Operation
from prefix_rft_rllib.envs.verifiers.math_structure import (
    Answer,
    Combined,
    Elements,
    Interval,
    Listed,
    Named,
    NamedSet,
    Relation,
    Solutions,
    Tupled,
    Value,
)
from prefix_rft_rllib.envs.verifiers.math_values import (
    UndefinedError,
    constant,
    equal,
    symbols_of,
    value_at,
)


@dataclasses.dataclass(frozen=True)
class Span:
    """The numbers between two ends; a single number if both are the same.

    Attributes:
        low: Lower end, as a number.
        high: Upper end.
        has_low: True if the lower end belongs to it.
        has_high: True if the upper end does.
        ends: The ends as formulas.
    """

    low: Any
    high: Any
    has_low: bool
    has_high: bool
    ends: tuple[Formula, Formula] = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class Spans:
    """A set of real numbers.

    Attributes:
        spans: Its parts, sorted and apart.
        names: Variables that are said to lie in it.
    """

    spans: tuple[Span, ...]
    names: frozenset[str] = frozenset()

    def equals(self, other: Spans) -> bool:
        """Tell whether both are the same set, and not of differently named variables."""
        if self.names and other.names and self.names != other.names:
            return False
        return len(self.spans) == len(other.spans) and all(map(_same, self.spans, other.spans))


_SAMPLES = (0, 1, 2, 7, -1, -5, 40, -60, 500, -3000)
"""Where an inequality is looked at; what is linear there is taken for linear."""
_INFINITY = Operation("infinity", ())
_WHOLE = Span(-mp.inf, mp.inf, False, False, (_INFINITY, _INFINITY))


def spans_of(answer: Answer) -> Spans:
    """Return the set of real numbers that an answer describes.

    Args:
        answer: An interval, inequality, set of numbers, membership or a combination.

    Raises:
        UndefinedError: If it is no such set, or its ends are no numbers.
    """
    if isinstance(answer, Interval):
        return Spans(_span(answer.low, answer.high, answer.has_low, answer.has_high))
    if isinstance(answer, Tupled) and len(answer.items) == 2:
        low, high = map(_formula, answer.items)
        return Spans(_span(low, high, has_low=False, has_high=False))
    if isinstance(answer, Elements | Listed):
        return Spans(_united([_point(_formula(item)) for item in answer.items]))
    if isinstance(answer, NamedSet) and answer.letter == "R":
        return Spans((_WHOLE,))
    if isinstance(answer, Solutions):
        inner = spans_of(answer.region)
        return Spans(inner.spans, frozenset((answer.name,)) - {""} | inner.names)
    if isinstance(answer, Named):
        names = frozenset(name for name, _ in answer.items)
        return Spans(_united([_point(_formula(item)) for _, item in answer.items]), names)
    if isinstance(answer, Relation):
        return _solved(answer)
    if isinstance(answer, Combined):
        return _combined(answer)
    raise UndefinedError("no set of real numbers")


def _combined(answer: Combined) -> Spans:
    parts = [spans_of(part) for part in answer.parts]
    names = frozenset[str]().union(*(part.names for part in parts))
    if len(names) > 1:
        raise UndefinedError("conditions on several variables")
    combine = {"union": _union, "intersection": _intersection, "difference": _difference}
    spans = functools.reduce(combine[answer.operation], (part.spans for part in parts))
    return Spans(tuple(spans), names)


def _formula(answer: Answer) -> Formula:
    if isinstance(answer, Value):
        return answer.formula
    raise UndefinedError("no number")


def _real(formula: Formula) -> Any:
    value = constant(formula)
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _span(low: Formula, high: Formula, has_low: bool, has_high: bool) -> tuple[Span, ...]:
    with mp.workdps(50):
        first, last = _real(low), _real(high)
    if first > last or (first == last and not (has_low and has_high)):
        raise UndefinedError("an interval without numbers")
    if (mp.isinf(first) and has_low) or (mp.isinf(last) and has_high):
        raise UndefinedError("an interval that holds infinity")
    return (Span(first, last, has_low, has_high, (low, high)),)


def _point(formula: Formula) -> Span:
    return _span(formula, formula, has_low=True, has_high=True)[0]


def _solved(relation: Relation) -> Spans:
    """Solve an inequality that is linear in one variable, or in its absolute value."""
    parts = _without_bars(relation)
    if parts is not None:
        return _combined(parts)
    difference = Operation("add", (relation.left, Operation("neg", (relation.right,))))
    names = symbols_of(difference)
    if len(names) != 1 or relation.sign == "=":
        raise UndefinedError("no inequality in one variable")
    (name,) = names
    at = [value_at(difference, {name: Fraction(x)}) for x in _SAMPLES]
    with mp.workdps(50):
        slope = at[1] - at[0]
        is_linear = all(
            abs(value - (at[0] + x * slope)) <= abs(slope) * mp.mpf(10) ** -40
            for x, value in zip(_SAMPLES[2:], map(_mp, at[2:]), strict=True)
        )
    if slope == 0 or not is_linear:
        raise UndefinedError("not linear")
    end = _end(relation, name, at[0], slope)
    if relation.sign == "!=":
        return Spans(_difference((_WHOLE,), (_point(end),)), frozenset(names))
    has_end = relation.sign == "<="
    with mp.workdps(50):
        value = _real(end)
    if slope > 0:
        span = Span(-mp.inf, value, False, has_end, (_INFINITY, end))
    else:
        span = Span(value, mp.inf, has_end, False, (end, _INFINITY))
    return Spans((span,), frozenset(names))


def _without_bars(relation: Relation) -> Combined | None:
    """Return `|a| < b` as `a < b` and `-a < b`, `b < |a|` as `b < a` or `b < -a`; None if neither.

    Where b is no positive number, the two say something else: no region is made of them.
    """
    left, right, sign = relation.left, relation.right, relation.sign
    for bars, bound in ((left, right), (right, left)):
        if not (isinstance(bars, Operation) and bars.name == "abs") or sign not in ("<", "<="):
            continue
        if symbols_of(bound) or not _real(bound) > 0:
            raise UndefinedError("an absolute value against no positive number")
        inner = bars.arguments[0]
        values = (inner, Operation("neg", (inner,)))
        if bars is left:
            return Combined("intersection", tuple(Relation(sign, v, right) for v in values))
        return Combined("union", tuple(Relation(sign, left, v) for v in values))
    return None


def _mp(value: Any) -> Any:
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _end(relation: Relation, name: str, offset: Any, slope: Any) -> Formula:
    """Return where the inequality turns, as it is written where that is possible."""
    for one, other in ((relation.left, relation.right), (relation.right, relation.left)):
        if getattr(one, "name", None) == name and not symbols_of(other):
            return other
    if isinstance(offset, Fraction) and isinstance(slope, Fraction):
        return Number(-offset / slope)
    at_zero = _at_zero(Operation("add", (relation.left, Operation("neg", (relation.right,)))), name)
    if isinstance(slope, Fraction):
        return Operation("div", (at_zero, Number(-slope)))
    raise UndefinedError("a slope that is no fraction")


def _at_zero(formula: Formula, name: str) -> Formula:
    if isinstance(formula, Operation):
        return Operation(formula.name, tuple(_at_zero(one, name) for one in formula.arguments))
    return Number(Fraction(0)) if getattr(formula, "name", None) == name else formula


def _same(one: Span, other: Span) -> bool:
    if (one.has_low, one.has_high) != (other.has_low, other.has_high):
        return False
    pairs = ((one.low, other.low), (one.high, other.high))
    for (a, b), left, right in zip(pairs, one.ends, other.ends, strict=True):
        if mp.isinf(a) or mp.isinf(b):
            if a != b:
                return False
        elif not equal(left, right):
            return False
    return True


def _united(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Sort and join what overlaps or touches."""
    result: list[Span] = []
    for span in sorted(spans, key=lambda one: (one.low, not one.has_low)):
        last = result[-1] if result else None
        if (
            last is None
            or last.high < span.low
            or (last.high == span.low and not (last.has_high or span.has_low))
        ):
            result.append(span)
        elif (span.high, span.has_high) > (last.high, last.has_high):
            ends = (last.ends[0], span.ends[1])
            result[-1] = Span(last.low, span.high, last.has_low, span.has_high, ends)
    return tuple(result)


def _union(one: Sequence[Span], other: Sequence[Span]) -> tuple[Span, ...]:
    return _united([*one, *other])


def _intersection(one: Sequence[Span], other: Sequence[Span]) -> tuple[Span, ...]:
    found = []
    for a in one:
        for b in other:
            low = max(a, b, key=lambda span: (span.low, not span.has_low))
            high = min(a, b, key=lambda span: (span.high, span.has_high))
            is_point = low.low == high.high and low.has_low and high.has_high
            if low.low < high.high or is_point:
                ends = (low.ends[0], high.ends[1])
                found.append(Span(low.low, high.high, low.has_low, high.has_high, ends))
    return tuple(found)


def _difference(one: Sequence[Span], other: Sequence[Span]) -> tuple[Span, ...]:
    rest = tuple(one)
    for span in other:
        outside = []
        if not mp.isinf(span.low):
            outside.append(
                Span(-mp.inf, span.low, False, not span.has_low, (_INFINITY, span.ends[0]))
            )
        if not mp.isinf(span.high):
            outside.append(
                Span(span.high, mp.inf, not span.has_high, False, (span.ends[1], _INFINITY))
            )
        rest = _intersection(rest, outside)
    return rest
