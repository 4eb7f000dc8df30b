r"""Formulas with units, names before an equals sign, and words around formulas."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction

from prefix_rft_rllib.envs.verifiers.math_formula import (
    ONE_ARGUMENT,
    Formula,
    Number,
    Operation,
    matching,
)
from prefix_rft_rllib.envs.verifiers.math_parser import parse
from prefix_rft_rllib.envs.verifiers.math_structure import Answer, Phrase, Value, Words
from prefix_rft_rllib.envs.verifiers.math_tokens import Token, UnreadError
from prefix_rft_rllib.envs.verifiers.math_words import (
    DEGREE,
    FILLERS,
    NO_UNIT,
    PERCENT,
    Unit,
    is_modifier,
    multiple,
    unit,
)

Tokens = Sequence[Token]

_CURRENCIES = {
    "$": "dollar",
    "€": "€",
    r"\euro": "€",
    "£": "£",
    r"\pounds": "£",
    "¥": "¥",
    "₹": "₹",
    "¢": "¢",
}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_POWERS_AFTER = {"squared": 2, "cubed": 3}
_TRIGONOMETRIC = frozenset(
    name[1:] for name in ONE_ARGUMENT if name not in (r"\log", r"\ln", r"\exp")
)
_BEHIND_DEGREES = {
    **{"C": "celsius", "F": "fahrenheit", "N": "north", "S": "south", "E": "east", "W": "west"}
}


def read_value(tokens: Tokens) -> Value:
    r"""Read a formula with units: `5 \text{ cm}^2`, `\$5 \text{ million}`, `3 hours 20 minutes`.

    Args:
        tokens: All tokens of it, as `ungrouped` returns them.

    Returns:
        Formula and unit; factors such as `million` are part of the formula.

    Raises:
        UnreadError: If a word is neither a unit nor a factor, or the formula is not understood.
    """
    tokens, currency = _without_currency(tokens)
    quantities: list[Value] = []
    while tokens:
        end = next((i for i, one in enumerate(tokens) if _is_unit_start(tokens, i)), len(tokens))
        if currency and end < len(tokens) and tokens[end - 1].text == "/":
            end -= 1
        units = _Units(tokens[end:], is_priced=currency is not None)
        formula, found = _lifted(_formula_or_clock(tokens[:end]))
        factor, named = units.read()
        if factor != 1:
            formula = Operation("mul", (formula, Number(factor)))
        quantities.append(Value(formula, found.times(named)))
        tokens = tokens[end + units.position :]
    if not quantities:
        raise UnreadError("no formula")
    if len(quantities) > 1:
        return _sum_of(quantities)
    value = quantities[0]
    return dataclasses.replace(value, unit=value.unit.times(currency)) if currency else value


def _sum_of(quantities: Sequence[Value]) -> Value:
    """Add up `3 hours 20 minutes`, in the units' base."""
    powers = quantities[0].unit.powers
    if not powers or any(one.unit.powers != powers for one in quantities):
        raise UnreadError("quantities side by side")
    terms = (Operation("mul", (one.formula, Number(one.unit.size))) for one in quantities)
    return Value(Operation("add", tuple(terms)), Unit(powers))


def ungrouped(tokens: Tokens) -> Tokens:
    r"""Drop braces around words alone, `5\,{\rm cm}`; write out letters behind degrees."""
    result: list[Token] = []
    index = 0
    while index < len(tokens):
        token = tokens[index]
        end = matching(tokens, index) if token.text == "{" else None
        inner = tokens[index + 1 : end] if end else ()
        is_raised = bool(result) and result[-1].text in ("^", "_")
        if end and inner and not is_raised and all(one.kind == "word" for one in inner):
            result.extend(inner)
            index = end + 1
        elif end:
            result.extend(tokens[index : end + 1])
            index = end + 1
        else:
            follows_degrees = any(one.text == r"\circ" for one in result[-2:])
            named = _BEHIND_DEGREES.get(token.text) if follows_degrees else None
            result.append(Token("word", named, token.is_spaced) if named else token)
            index += 1
    return result


def _without_currency(tokens: Tokens) -> tuple[Tokens, Unit | None]:
    """Take one currency sign off the front (behind a minus too) or the end."""
    index = 1 if tokens and tokens[0].text in ("-", "+") else 0
    if len(tokens) > index + 1 and (name := _CURRENCIES.get(tokens[index].text)):
        return (*tokens[:index], *tokens[index + 1 :]), unit(name)
    if len(tokens) > 1 and (name := _CURRENCIES.get(tokens[-1].text)):
        return tokens[:-1], unit(name)
    return tokens, None


def _is_unit_start(tokens: Tokens, index: int) -> bool:
    token = tokens[index]
    return token.kind == "word" and index > 0 and tokens[index - 1].text not in ("_", "^", "{")


def _formula_or_clock(tokens: Tokens) -> Formula:
    """Parse; `1:05` is a time and no quotient, as its minutes begin with 0."""
    if [one.kind for one in tokens] == ["number", "sign", "number"] and tokens[1].text == ":":
        hours, minutes = tokens[0].text, tokens[2].text
        if len(minutes) == 2 and minutes.startswith("0") and hours.isdigit() and minutes.isdigit():
            return Number(Fraction(int(hours)) + Fraction(int(minutes), 60))
    return parse(tokens)


def _clock(tokens: Tokens) -> Value | None:
    """Read `3:15` before `a.m.` or `p.m.` as hours; None if there is no colon.

    Raises:
        UnreadError: If the minutes are not written as two digits.
    """
    if not any(token.text == ":" for token in tokens):
        return None
    texts = [token.text for token in tokens]
    if len(texts) != 3 or not (
        texts[0].isdecimal() and texts[2].isdecimal() and len(texts[2]) == 2
    ):
        raise UnreadError("a time without hours and minutes")
    return Value(Number(Fraction(int(texts[0])) + Fraction(int(texts[2]), 60)))


class _Units:
    """Reads the units at the front of tokens, up to the next formula or the end."""

    def __init__(self, tokens: Tokens, is_priced: bool = False):
        self.tokens, self.position = tokens, 0
        self.is_priced = is_priced
        self.factor, self.unit = Fraction(1), NO_UNIT
        self.sign, self.power = 1, 1

    def read(self) -> tuple[Fraction, Unit]:
        while self.position < len(self.tokens):
            token = self.tokens[self.position]
            if token.kind in ("number", "repeating") or token.text == r"\frac":
                break
            self.position += 1
            if token.kind == "word":
                self._word(token)
            elif token.text == "/" or (token.text == "-" and self.unit is not NO_UNIT):
                self.sign = -1 if token.text == "/" else self.sign
            elif token.text not in (".", r"\cdot"):
                raise UnreadError(f"`{token.text}` among units")
        if self.power != 1 or self.sign != 1:
            raise UnreadError("a unit that is missing")
        return self.factor, self.unit

    def _word(self, token: Token) -> None:
        word = token.text.casefold()
        if word in ("per", "a", "an", "each") and (self.is_priced or self.unit is not NO_UNIT):
            self.sign = -1
            if word == "each":
                raise UnreadError("`each`")
        elif word in _POWERS:
            self.power = _POWERS[word]
        elif (factor := multiple(word)) is not None and self.unit is NO_UNIT:
            self.factor *= factor
        elif (
            word in FILLERS
            or (word == "in" and self._next_word() in FILLERS)
            or (is_modifier(word) and self._next_word())
            or (word == "old" and self.unit is not NO_UNIT)
        ):
            pass
        elif word == "of" and (counted := self._next_word()) and unit(counted) is not None:
            self.position += 1
        elif (found := unit(token.text)) is not None:
            following = self._next_word()
            if (
                _is_counted(found)
                and following
                and (next_unit := unit(following))
                and _is_counted(next_unit)
            ):
                return
            self._found(found)
        else:
            raise UnreadError(f"the word `{token.text}`")

    def _next_word(self) -> str:
        if self.position < len(self.tokens) and self.tokens[self.position].kind == "word":
            return self.tokens[self.position].text
        return ""

    def _found(self, found: Unit) -> None:
        power = self._exponent() * self.power
        self.unit = self.unit.times(found, self.sign * power)
        self.sign, self.power = 1, 1

    def _exponent(self) -> int:
        word = self._next_word().casefold()
        if word in _POWERS_AFTER:
            self.position += 1
            return _POWERS_AFTER[word]
        if self.position >= len(self.tokens) or self.tokens[self.position].text != "^":
            return 1
        end = self.position + 2
        if self.tokens[self.position + 1].text == "{":
            end = (matching(self.tokens, self.position + 1) or len(self.tokens)) + 1
        digits = "".join(
            one.text for one in self.tokens[self.position + 1 : end] if one.text not in "{}"
        )
        self.position = end
        if digits not in ("1", "2", "3", "-1", "-2", "-3"):
            raise UnreadError("a power of a unit")
        return int(digits)


def _is_counted(found: Unit) -> bool:
    return found.powers[0][0].startswith("#")


def _lifted(formula: Formula) -> tuple[Formula, Unit]:
    r"""Take percent and degree signs out of a formula: `-90^\\circ` is -90 with a unit.

    Inside trigonometric functions degrees stay: they are part of the value there.
    """
    if isinstance(formula, Operation):
        if formula.name == "percent":
            return formula.arguments[0], PERCENT
        if formula.name in ("neg", "pm") and isinstance(formula.arguments[0], Operation):
            inner, found = _lifted(formula.arguments[0])
            return Operation(formula.name, (inner,)), found
    without = _without_degrees(formula)
    return without, NO_UNIT if without == formula else DEGREE


def _without_degrees(formula: Formula) -> Formula:
    if not isinstance(formula, Operation) or formula.name in _TRIGONOMETRIC:
        return formula
    arguments = tuple(map(_without_degrees, formula.arguments))
    return arguments[0] if formula.name == "degree" else Operation(formula.name, arguments)


def read_phrase(tokens: Tokens, read: Callable[[Tokens], Answer]) -> Answer:
    """Read words around formulas; every part must be understood by itself.

    Args:
        tokens: Tokens, some of them words.
        read: Reads the formulas between.

    Raises:
        UnreadError: If one of them is not understood.
    """
    parts: list[Answer] = []
    index = 0
    while index < len(tokens):
        end = index
        is_words = tokens[index].kind == "word"
        while end < len(tokens) and (tokens[end].kind == "word") == is_words:
            end += 1
        run = tokens[index:end]
        if is_words:
            parts.append(Words(" ".join(one.text.casefold() for one in run)))
        elif end < len(tokens) and tokens[end].text.casefold() in ("am", "pm", "noon", "midnight"):
            parts.append(_clock(run) or read(run))
        elif index == 0 and run[-1].text == "-" and not tokens[end].is_spaced:
            raise UnreadError("a sign before a word")
        elif not all(one.text in (".", "?", "-", '"', "'", "(", ")", ":") for one in run):
            parts.append(read(run))
        index = end
    if len(parts) == 1:
        return parts[0]
    return Phrase(tuple(parts))
