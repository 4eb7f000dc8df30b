r"""Random answers made of several values: named values, lists, tuples, intervals.

Each has spellings that are right, and near misses that are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.envs.verifiers.math_formulas import Formula, Spelling, differ, leaf


@dataclass(frozen=True)
class Structure:
    """Right and wrong spellings of one answer."""

    spell: Spelling
    miss: Spelling


def structure(rng: Random) -> Structure:
    """A random answer of two or three values that differ from each other."""
    number = rng.choice((2, 2, 3))
    values: list[Formula] = []
    while len(values) < number:
        value = leaf(rng)
        if all(differ(value.value, other.value) for other in values):
            values.append(value)
    makers = (named, some_list, some_tuple, interval)
    return rng.choice(makers)(values)


def _other(values: list[Formula], rng: Random) -> list[Formula]:
    """The values, one of them replaced by one that none of them is."""
    while True:
        value = leaf(rng)
        if all(differ(value.value, other.value) for other in values):
            at = rng.randrange(len(values))
            return [*values[:at], value, *values[at + 1 :]]


def _commas(values: list[Formula], rng: Random) -> str:
    return rng.choice((", ", ",", ",\\ ")).join(value.spell(rng) for value in values)


def named(values: list[Formula]) -> Structure:
    """Values with names: their order is free, which has which is not."""
    names = "xyz"[: len(values)]

    def spell_as(given: list[Formula], rng: Random, names: str) -> str:
        if rng.random() < 0.3:
            return f"({','.join(names)}) = ({_commas(given, rng)})"
        parts = [
            f"{name}{rng.choice(('=', ' = '))}{value.spell(rng)}"
            for name, value in zip(names, given, strict=True)
        ]
        rng.shuffle(parts)
        return ", ".join(parts)

    def miss(rng: Random) -> str:
        kind = rng.randrange(4)
        if kind == 0:
            return spell_as([values[1], values[0], *values[2:]], rng, names)
        if kind == 1:
            return spell_as(_other(values, rng), rng, names)
        if kind == 2:
            return spell_as(values[:-1], rng, names[:-1])
        return spell_as(values, rng, names.replace("y", "w"))

    return Structure(lambda rng: spell_as(values, rng, names), miss)


def some_list(values: list[Formula]) -> Structure:
    """Values in any order, each once."""

    def spell(rng: Random) -> str:
        mixed = rng.sample(values, len(values))
        form = rng.randrange(3)
        if form == 0:
            return _commas(mixed, rng)
        if form == 1:
            return f"\\{{{_commas(mixed, rng)}\\}}"
        return f"{_commas(mixed[:-1], rng)} \\text{{ and }} {mixed[-1].spell(rng)}"

    def miss(rng: Random) -> str:
        kind = rng.randrange(4)
        if kind == 0:
            return _commas(_other(values, rng), rng)
        if kind == 1:
            return _commas(values[:-1], rng)
        if kind == 2:
            return _commas([*values, values[0]], rng)
        return values[0].spell(rng)

    return Structure(spell, miss)


def some_tuple(values: list[Formula]) -> Structure:
    """Values in one order."""

    def spell_as(given: list[Formula], rng: Random) -> str:
        around = rng.choice(
            ("()", ("\\left(", "\\right)"), ("\\langle ", " \\rangle"), ("P(", ")"))
        )
        return f"{around[0]}{_commas(given, rng)}{around[1]}"

    def miss(rng: Random) -> str:
        kind = rng.randrange(3)
        if kind == 0:
            return spell_as(values[::-1], rng)
        if kind == 1:
            return spell_as(_other(values, rng), rng)
        return spell_as([*values, values[0]], rng)

    # A plain tuple first: as a gold answer it must not be taken for an interval or a point.
    return Structure(lambda rng: spell_as(values, rng), miss)


def interval(values: list[Formula]) -> Structure:
    """All numbers between two, with or without these."""
    low, high = sorted(values[:2], key=lambda value: value.value)

    def spell_as(low: Formula, high: Formula, ends: str, rng: Random) -> str:
        one, two = low.spell(rng), high.spell(rng)
        if rng.random() < 0.5:
            name = rng.choice(("", "x \\in "))
            return f"{name}{ends[0]}{one}, {two}{ends[1]}"
        before = {"(": "<", "[": rng.choice(("\\le", "\\leq", "\\leqslant"))}[ends[0]]
        behind = {")": "<", "]": rng.choice(("\\le", "\\leq"))}[ends[1]]
        if rng.random() < 0.3:
            turned = {"<": ">", "\\le": "\\ge", "\\leq": "\\geq", "\\leqslant": "\\geqslant"}
            return f"{two} {turned[behind]} x {turned[before]} {one}"
        return f"{one} {before} x {behind} {two}"

    def miss(rng: Random) -> str:
        if rng.random() < 0.5:
            return spell_as(low, high, rng.choice(("()", "[)", "[]")), rng)
        other = _other([low, high], rng)
        bounds = sorted(other, key=lambda value: value.value)
        return spell_as(*bounds, "(]", rng)

    return Structure(lambda rng: spell_as(low, high, "(]", rng), miss)
