"""What an answer can be: the values that `read` returns and the comparison takes apart."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

from prefix_rft_rllib.envs.verifiers.math_formula import Formula
from prefix_rft_rllib.envs.verifiers.math_words import NO_UNIT, Unit


@dataclasses.dataclass(frozen=True)
class Value:
    """A formula with a unit, `NO_UNIT` if none is written."""

    formula: Formula
    unit: Unit = NO_UNIT


@dataclasses.dataclass(frozen=True)
class Words:
    """Words alone, lower case with single blanks; a name in capitals (`ABC`) keeps them."""

    text: str


@dataclasses.dataclass(frozen=True)
class Phrase:
    """Words around formulas, `n is even`: a tuple of answers, all of which must agree."""

    parts: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True)
class Choice:
    """A letter of a multiple-choice question and, if written, the text behind it."""

    letter: str
    answer: Answer | None = None


@dataclasses.dataclass(frozen=True)
class Named:
    """Values with names, `x=3, y=4`, in the order of writing; a name may occur repeatedly."""

    items: tuple[tuple[str, Answer], ...]


@dataclasses.dataclass(frozen=True)
class Listed:
    """Answers side by side, in any order, each as often as it is written.

    `is_either` is True if `or` stands between them: two spellings of one answer may be meant.
    """

    items: tuple[Answer, ...]
    is_either: bool = dataclasses.field(default=False, compare=False)


@dataclasses.dataclass(frozen=True)
class Tupled:
    """Answers in order: `(1, 2)`, a vector or a point."""

    items: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True)
class Interval:
    """The numbers between two formulas."""

    low: Formula
    high: Formula
    has_low: bool
    has_high: bool


@dataclasses.dataclass(frozen=True)
class Elements:
    """A set by its elements; none for the empty set."""

    items: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True)
class NamedSet:
    """All real numbers, all integers, ...: by the letter."""

    letter: str


@dataclasses.dataclass(frozen=True)
class Combined:
    """Sets combined: "union", "intersection" or "difference"."""

    operation: str
    parts: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True)
class Solutions:
    r"""The values a variable may take: `x \in [0, 1]`.

    Attributes:
        name: The variable; "" if none is named.
        region: The set of values.
    """

    name: str
    region: Answer


@dataclasses.dataclass(frozen=True)
class Relation:
    """Two formulas with a sign between them: "=", "<", "<=" or "!="."""

    sign: str
    left: Formula
    right: Formula


@dataclasses.dataclass(frozen=True)
class Congruence:
    """One or more residue classes; `name` is "" if no variable is named."""

    name: str
    residues: tuple[Formula, ...]
    modulus: Formula


@dataclasses.dataclass(frozen=True)
class Based:
    """A number in a base: digits and base as written."""

    digits: str
    base: int


@dataclasses.dataclass(frozen=True)
class Pieces:
    """A function by cases: pairs of a value and its condition."""

    rows: tuple[tuple[Answer, Answer], ...]


@dataclasses.dataclass(frozen=True)
class Ellipsis:
    """Dots between the items of a list."""


Answer: TypeAlias = (
    Value
    | Words
    | Phrase
    | Choice
    | Named
    | Listed
    | Tupled
    | Interval
    | Elements
    | NamedSet
    | Combined
    | Solutions
    | Relation
    | Congruence
    | Based
    | Pieces
    | Ellipsis
)
