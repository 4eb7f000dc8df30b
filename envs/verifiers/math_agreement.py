"""Comparing an answer with the gold answer: structure with structure. Runs in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from prefix_rft_rllib.envs.verifiers.math_equations import (
    are_proportional,
    equations_agree,
    states_number,
    states_value,
)
from prefix_rft_rllib.envs.verifiers.math_formula import Formula, Number, Operation, Symbol
from prefix_rft_rllib.envs.verifiers.math_regions import spans_of
from prefix_rft_rllib.envs.verifiers.math_signs import spread
from prefix_rft_rllib.envs.verifiers.math_structure import (
    Answer,
    Based,
    Choice,
    Combined,
    Congruence,
    Elements,
    Ellipsis,
    Interval,
    Listed,
    Named,
    NamedSet,
    Phrase,
    Pieces,
    Relation,
    Solutions,
    Tupled,
    Value,
    Words,
)
from prefix_rft_rllib.envs.verifiers.math_units import values_agree
from prefix_rft_rllib.envs.verifiers.math_values import UndefinedError, constant, equal
from prefix_rft_rllib.envs.verifiers.math_words import NO_UNIT

_ARTICLES = frozenset(("the", "a", "an"))
_SETS = (Interval, Combined, Solutions, NamedSet)
_ONE = (Value, Tupled)


def agree(gold: Answer, answer: Answer) -> bool:
    """Tell whether an answer means what the gold answer means.

    Args:
        gold: The gold answer, as `read` returns it.
        answer: The answer to be graded.

    Returns:
        True only if the whole answer agrees.
    """
    gold, answer = spread(gold), spread(answer)
    if gold == answer:
        return True
    if (
        isinstance(answer, Listed)
        and answer.is_either
        and not isinstance(gold, Listed | Elements | Named)
    ):
        return all(agree(gold, one) for one in answer.items)
    for kinds, compare in _COMPARISONS:
        if isinstance(gold, kinds) or isinstance(answer, kinds):
            return compare(gold, answer)
    return False


def _letter(answer: Answer) -> str | None:
    """Return the letter of a choice, or of a single capital that may be one."""
    if isinstance(answer, Choice):
        return answer.letter
    if isinstance(answer, Value) and answer.unit == NO_UNIT and isinstance(answer.formula, Symbol):
        return answer.formula.name if "A" <= answer.formula.name <= "J" else None
    return None


def _choices(gold: Answer, answer: Answer) -> bool:
    """A letter agrees with its letter, a text with its text; both must, where both are there."""
    letters = _letter(gold), _letter(answer)
    if None not in letters:
        texts = [
            one.answer
            for one in (gold, answer)
            if isinstance(one, Choice) and one.answer is not None
        ]
        return letters[0] == letters[1] and (len(texts) < 2 or agree(texts[0], texts[1]))
    gold_text = gold.answer if isinstance(gold, Choice) else gold
    text = answer.answer if isinstance(answer, Choice) else answer
    return gold_text is not None and text is not None and agree(gold_text, text)


def _words(gold: Answer, answer: Answer) -> bool:
    texts = [_spelled(one) for one in (gold, answer)]
    return texts[0] is not None and texts[0] == texts[1]


def _spelled(answer: Answer) -> str | None:
    if isinstance(answer, Words):
        words = [word for word in answer.text.split() if word not in _ARTICLES]
        return " ".join(words) or answer.text
    if isinstance(answer, Phrase):
        parts = [_spelled(part) for part in answer.parts]
        return None if None in parts else " ".join(part for part in parts if part)
    if isinstance(answer, Value) and isinstance(answer.formula, Symbol):
        name = answer.formula.name.removeprefix(r"\overline").removeprefix(r"\triangle")
        return name.casefold() if name.isalpha() else None
    return None


def _phrases(gold: Answer, answer: Answer) -> bool:
    if not (isinstance(gold, Phrase) and isinstance(answer, Phrase)):
        return _words(gold, answer)
    pairs = zip(gold.parts, answer.parts, strict=False)
    return len(gold.parts) == len(answer.parts) and all(agree(*pair) for pair in pairs)


def _same_kind(
    kind: type, fields: Callable[[Any], Sequence[Answer]]
) -> Callable[[Answer, Answer], bool]:
    def compare(gold: Answer, answer: Answer) -> bool:
        if not (isinstance(gold, kind) and isinstance(answer, kind)):
            return False
        return unordered(fields(gold), fields(answer))

    return compare


def unordered(golds: Sequence[Answer], answers: Sequence[Answer]) -> bool:
    """Tell whether answers are the gold answers in some order, each as often."""
    if len(golds) != len(answers):
        return False
    left = list(answers)
    for gold in golds:
        index = next((i for i, answer in enumerate(left) if agree(gold, answer)), None)
        if index is None:
            return False
        del left[index]
    return True


def _ordered(golds: Sequence[Answer], answers: Sequence[Answer]) -> bool:
    return len(golds) == len(answers) and all(map(agree, golds, answers))


def _counted(items: Listed | Elements) -> list[Answer]:
    """Return the items, those of a set once each."""
    if isinstance(items, Listed):
        return list(items.items)
    found: list[Answer] = []
    for answer in items.items:
        if not any(agree(one, answer) for one in found):
            found.append(answer)
    return found


def _pieces(gold: Answer, answer: Answer) -> bool:
    if not (isinstance(gold, Pieces) and isinstance(answer, Pieces)):
        return False
    return unordered([Tupled(row) for row in gold.rows], [Tupled(row) for row in answer.rows])


def _congruences(gold: Answer, answer: Answer) -> bool:
    if not (isinstance(gold, Congruence) and isinstance(answer, Congruence)):
        return False
    if (gold.name and answer.name and gold.name != answer.name) or not equal(
        gold.modulus, answer.modulus
    ):
        return False
    try:
        modulus = constant(gold.modulus)
        residues = [
            {_residue(one, modulus) for one in congruence.residues} for congruence in (gold, answer)
        ]
    except UndefinedError:
        return False
    return residues[0] == residues[1]


def _residue(formula: Formula, modulus: Any) -> Fraction:
    residue = constant(formula)
    if not (isinstance(residue, Fraction) and isinstance(modulus, Fraction) and modulus > 0):
        raise UndefinedError("no residue")
    return residue % modulus


def _based(gold: Answer, answer: Answer) -> bool:
    """A base is part of the answer; base ten may be left out."""
    if isinstance(gold, Based) and isinstance(answer, Based):
        return False
    based, other = (gold, answer) if isinstance(gold, Based) else (answer, gold)
    if not isinstance(based, Based) or based.base != 10 or not isinstance(other, Value):
        return False
    return agree(Value(Number(Fraction(based.digits))), other)


def _named(gold: Answer, answer: Answer) -> bool:
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return _relations(_as_relation(gold), _as_relation(answer))
    if isinstance(gold, _SETS) or isinstance(answer, _SETS):
        if _spans(gold, answer):
            return True
        gold_value, value = _only_value(gold), _only_value(answer)
        return not (gold_value is None and value is None) and agree(
            gold_value or gold, value or answer
        )
    if isinstance(gold, Named) and isinstance(answer, Named):
        return _both_named(gold, answer)
    if isinstance(gold, Named):
        return _named_against(gold, answer, is_gold_named=True)
    assert isinstance(answer, Named)
    return _named_against(answer, gold, is_gold_named=False)


def _only_value(answer: Answer) -> Answer | None:
    return answer.items[0][1] if isinstance(answer, Named) and len(answer.items) == 1 else None


def _both_named(gold: Named, answer: Named) -> bool:
    names = [sorted({name for name, _ in one.items}) for one in (gold, answer)]
    if names[0] == names[1] or names in ([["f"], ["y"]], [["y"], ["f"]]):
        grouped = [
            [Listed(tuple(value for name, value in one.items if name == key)) for key in keys]
            for one, keys in ((gold, names[0]), (answer, names[1]))
        ]
        if all(agree(*pair) for pair in zip(*grouped, strict=True)):
            return True
    if len(gold.items) == len(answer.items) == 1:
        return equations_agree(_as_relation(gold), _as_relation(answer))
    return False


def _named_against(named: Named, other: Answer, is_gold_named: bool) -> bool:
    """Compare named values with values without names: by order if there are several names."""
    names = list(dict.fromkeys(name for name, _ in named.items))
    values = [value for _, value in named.items]
    if len(names) == 1:
        inner: Answer = values[0] if len(values) == 1 else Listed(tuple(values))
        return agree(inner, other) if is_gold_named else agree(other, inner)
    if len(names) != len(values) or (isinstance(other, Listed) and other.is_either):
        return False
    if isinstance(other, Listed) and not is_gold_named:
        return unordered(other.items, values)
    if all(len(name) == 1 and name.isascii() for name in names):
        values = [value for _, value in sorted(named.items, key=lambda item: item[0])]
    if isinstance(other, Tupled | Listed):
        return _ordered(values, other.items)
    row = _vector(other)
    return row is not None and _ordered(values, row)


def _as_relation(answer: Answer) -> Answer:
    if isinstance(answer, Named) and len(answer.items) == 1:
        name, value = answer.items[0]
        if isinstance(value, Value) and value.unit == NO_UNIT:
            return Relation("=", Symbol(name), value.formula)
    return answer


def _relations(gold: Answer, answer: Answer) -> bool:
    """Equations, and formulas that one side of an equation states."""
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        if gold.sign == answer.sign == "=":
            return equations_agree(gold, answer)
        return gold.sign == answer.sign and are_proportional(
            gold, answer, needs_positive=gold.sign != "!="
        )
    if isinstance(answer, Relation) and answer.sign == "=" and states_value(answer):
        return agree(gold, Value(answer.right))
    if isinstance(gold, Relation) and gold.sign == "=" and states_number(gold):
        return agree(Value(gold.right), answer)
    return _spans(gold, answer)


def _vector(answer: Answer) -> tuple[Answer, ...] | None:
    """Return the entries of a matrix with one row or one column."""
    if not (isinstance(answer, Value) and isinstance(answer.formula, Operation)):
        return None
    rows = answer.formula.arguments if answer.formula.name == "matrix" else ()
    cells = [getattr(row, "arguments", ()) for row in rows]
    if len(cells) == 1 or (cells and all(len(row) == 1 for row in cells)):
        return tuple(Value(cell) for row in cells for cell in row)
    return None


def _lists(gold: Answer, answer: Answer) -> bool:
    if isinstance(gold, Listed | Elements) and isinstance(answer, Listed | Elements):
        if Ellipsis() in gold.items:
            return _ordered(gold.items, answer.items)
        return unordered(gold.items, answer.items) or unordered(_counted(gold), _counted(answer))
    if any(isinstance(one, Listed) and one.is_either for one in (gold, answer)):
        return False
    if isinstance(gold, Listed | Tupled) and isinstance(answer, Listed | Tupled):
        return _ordered(gold.items, answer.items)
    if isinstance(gold, Elements | Interval) or isinstance(answer, Elements | Interval):
        return _spans(gold, answer)
    rows = [one.items if isinstance(one, Tupled) else _vector(one) for one in (gold, answer)]
    return rows[0] is not None and rows[1] is not None and _ordered(rows[0], rows[1])


def _spans(gold: Answer, answer: Answer) -> bool:
    """Compare as sets of real numbers, or part by part where they are none."""
    try:
        return spans_of(gold).equals(spans_of(answer))
    except UndefinedError:
        pass
    for elements, other in ((gold, answer), (answer, gold)):
        if isinstance(elements, Elements) and len(elements.items) == 1 and isinstance(other, _ONE):
            return agree(elements.items[0], other)
    if isinstance(gold, Tupled) and isinstance(answer, Interval):
        gold, answer = answer, gold
    if isinstance(gold, Interval) and isinstance(answer, Tupled) and len(answer.items) == 2:
        is_open = not (gold.has_low or gold.has_high)
        return is_open and _ordered((Value(gold.low), Value(gold.high)), answer.items)
    if isinstance(gold, Interval) and isinstance(answer, Interval):
        closed = (gold.has_low, gold.has_high) == (answer.has_low, answer.has_high)
        return closed and equal(gold.low, answer.low) and equal(gold.high, answer.high)
    if isinstance(gold, Solutions) and isinstance(answer, Solutions):
        has_same_name = not (gold.name and answer.name) or gold.name == answer.name
        return has_same_name and agree(gold.region, answer.region)
    if isinstance(gold, Solutions) or isinstance(answer, Solutions):
        plain = [one.region if isinstance(one, Solutions) else one for one in (gold, answer)]
        return agree(plain[0], plain[1])
    if (
        isinstance(gold, Combined)
        and isinstance(answer, Combined)
        and gold.operation == answer.operation
    ):
        if gold.operation == "difference":
            return _ordered(gold.parts, answer.parts)
        return unordered(gold.parts, answer.parts)
    return False


_COMPARISONS: tuple[tuple[Any, Callable[[Answer, Answer], bool]], ...] = (
    (Choice, _choices),
    (Phrase, _phrases),
    (Pieces, _pieces),
    (Congruence, _congruences),
    (Based, _based),
    (Named, _named),
    ((Combined, Solutions, NamedSet), _spans),
    (Relation, _relations),
    (Words, _words),
    ((Listed, Tupled, Elements, Interval), _lists),
    (Value, values_agree),
)
