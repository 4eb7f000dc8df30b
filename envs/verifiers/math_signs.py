r"""Formulas with `\pm`: what they stand for. Standard library only."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from prefix_rft_rllib.envs.verifiers.math_formula import Formula, Operation
from prefix_rft_rllib.envs.verifiers.math_structure import (
    Answer,
    Elements,
    Listed,
    Named,
    Tupled,
    Value,
)

MAX_SIGNS = 4
r"""Formulas with more `\pm` are left as they are, and equal to nothing else."""


def expanded(formula: Formula) -> list[Formula]:
    r"""Return the formulas that one with `\pm` stands for; signs go together if `\mp` is there."""
    count, has_lower = _count_signs(formula), has_operation(formula, "mp")
    if not count:
        return [formula]
    if count > MAX_SIGNS:
        return [formula]
    if has_lower:
        signs: list[tuple[bool, ...]] = [(True,) * count, (False,) * count]
    else:
        signs = list(itertools.product((True, False), repeat=count))
    return [_with_signs(formula, iter(one)) for one in signs]


def _count_signs(formula: Formula) -> int:
    if not isinstance(formula, Operation):
        return 0
    return (formula.name in ("pm", "mp")) + sum(map(_count_signs, formula.arguments))


def has_operation(formula: Formula, name: str) -> bool:
    """True if an operation of this name stands anywhere in the formula."""
    return isinstance(formula, Operation) and (
        formula.name == name or any(has_operation(one, name) for one in formula.arguments)
    )


def _with_signs(formula: Formula, signs: Iterator[bool]) -> Formula:
    if not isinstance(formula, Operation):
        return formula
    name = formula.name
    if name in ("pm", "mp"):
        is_plus = next(signs) == (name == "pm")
        inner = _with_signs(formula.arguments[0], signs)
        return inner if is_plus else Operation("neg", (inner,))
    return Operation(name, tuple(_with_signs(one, signs) for one in formula.arguments))


def spread(answer: Answer) -> Answer:
    r"""Write out `\pm` as two answers, and lists inside lists as one."""
    if isinstance(answer, Value):
        formulas = expanded(answer.formula)
        return (
            answer
            if len(formulas) == 1
            else Listed(tuple(Value(one, answer.unit) for one in formulas))
        )
    if isinstance(answer, Named):
        items = [(name, spread(one)) for name, one in answer.items]
        if any(isinstance(one, Listed) for _, one in items):
            return Named(tuple((name, part) for name, one in items for part in items_of(one)))
        return Named(tuple(items))
    if isinstance(answer, Listed | Elements):
        flat = [part for one in answer.items for part in items_of(spread(one))]
        if isinstance(answer, Listed) and len(flat) == 1:
            return flat[0]
        return dataclasses.replace(answer, items=tuple(flat))
    if isinstance(answer, Tupled):
        choices = [items_of(spread(one)) for one in answer.items]
        tuples = [
            Tupled(one) for one in itertools.islice(itertools.product(*choices), 2**MAX_SIGNS + 1)
        ]
        return tuples[0] if len(tuples) == 1 else Listed(tuple(tuples))
    return answer


def items_of(answer: Answer) -> tuple[Answer, ...]:
    """Return the items of a list, or the one answer."""
    return answer.items if isinstance(answer, Listed) else (answer,)
