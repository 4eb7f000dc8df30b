r"""Reading one answer: text in, a value of `math_structure` out, whole or not at all.

The structure (lists, tuples, sets, relations, names, words) is read here; what is left between is
a formula with a unit. Nothing falls back to a part of the text. Standard library only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from prefix_rft_rllib.envs.verifiers.math_formula import (
    matching,
    matrix_rows,
    quotient,
    split,
)
from prefix_rft_rllib.envs.verifiers.math_lists import (
    decimal_comma_joined,
    joined,
    listed_conditions,
    thousands_joined,
)
from prefix_rft_rllib.envs.verifiers.math_names import name_of
from prefix_rft_rllib.envs.verifiers.math_plain import (
    is_connective,
    read_based,
    read_words,
    refuse_unknown_operators,
    stripped,
    trimmed,
    unlabelled,
)
from prefix_rft_rllib.envs.verifiers.math_quantities import read_phrase, read_value, ungrouped
from prefix_rft_rllib.envs.verifiers.math_relations import (
    named_set,
    read_congruence,
    read_relation,
)
from prefix_rft_rllib.envs.verifiers.math_structure import (
    Answer,
    Choice,
    Combined,
    Elements,
    Ellipsis,
    Interval,
    Listed,
    Named,
    Phrase,
    Pieces,
    Solutions,
    Tupled,
    Value,
    Words,
)
from prefix_rft_rllib.envs.verifiers.math_tokens import Token, UnreadError, tokenize
from prefix_rft_rllib.envs.verifiers.math_words import NO_UNIT

Tokens = Sequence[Token]
Reader = Callable[[Tokens], Answer]

_MAX_NESTING = 12
"""Structure inside structure: a set of tuples of intervals is three."""


@functools.lru_cache(maxsize=4096)
def read(text: str, has_decimal_comma: bool = False) -> Answer:
    """Read an answer.

    Args:
        text: The answer as a data file or a box gives it.
        has_decimal_comma: Read `3,5` as three and a half and not as a list.

    Returns:
        Its value.

    Raises:
        UnreadError: If any part of the text is not understood.
    """
    try:
        tokens: Tokens = tokenize(stripped(text))
        if has_decimal_comma:
            tokens = decimal_comma_joined(tokens)
        answer = _Reader().read(tokens)
    except (RecursionError, IndexError) as error:
        raise UnreadError("too deep or cut off") from error
    if isinstance(answer, Ellipsis):
        raise UnreadError("dots alone")
    return answer


class _Reader:
    """Tries the structures one after the other; each returns None if the text is no such thing."""

    def __init__(self) -> None:
        self.nesting = 0

    def read(self, tokens: Tokens) -> Answer:
        self.nesting += 1
        if self.nesting > _MAX_NESTING:
            raise UnreadError("structures nested too deep")
        try:
            return self._read(unlabelled(trimmed(tokens)))
        finally:
            self.nesting -= 1

    def _read(self, tokens: Tokens) -> Answer:
        if not tokens:
            raise UnreadError("an empty part")
        for reader in (
            self._choice,
            read_words,
            self._congruence,
            self._list,
            self._relation,
            self._combined_set,
            self._whole_bracket,
            self._environment,
            self._point,
            read_based,
        ):
            if (answer := reader(tokens)) is not None:
                return answer
        return self._value(tokens)

    def _value(self, tokens: Tokens) -> Answer:
        tokens = ungrouped(tokens)
        refuse_unknown_operators(tokens)
        ratio = split(tokens, (":",))
        if len(ratio) > 2:
            return _ratio([self.read(part) for part in ratio])
        try:
            return read_value(tokens)
        except UnreadError:
            if not any(token.kind == "word" for token in tokens):
                raise
        return read_phrase(tokens, self.read)

    def _congruence(self, tokens: Tokens) -> Answer | None:
        return read_congruence(tokens)

    def _relation(self, tokens: Tokens) -> Answer | None:
        return read_relation(tokens, self.read)

    def _choice(self, tokens: Tokens) -> Answer | None:
        """Read `(E) 14`, `E. 14`, `E) 14` and `(E)`."""
        is_bracketed = tokens[0].text == "(" and len(tokens) > 2 and tokens[2].text == ")"
        letter = tokens[1] if is_bracketed else tokens[0]
        is_upper = len(letter.text) == 1 and "A" <= letter.text <= "J"
        is_lower = len(letter.text) == 1 and "a" <= letter.text <= "j" and letter.kind == "word"
        if letter.kind not in ("letters", "word") or not (is_upper or (is_lower and is_bracketed)):
            return None
        if is_bracketed:
            rest = tokens[3:]
            if rest and not (
                _opens_text(rest)
                and not is_connective(rest[0])
                and (rest[0].is_spaced or rest[0].kind != "letters")
            ):
                return None
            if _names_choice_again(rest):
                raise UnreadError("several choices with their texts")
            return Choice(letter.text.upper(), self.read(rest) if rest else None)
        if (
            len(tokens) > 2
            and tokens[1].text in (")", ".", ":")
            and (tokens[1].text != ":" or tokens[2].is_spaced)
        ):
            if _names_choice_again(tokens[2:]):
                raise UnreadError("several choices with their texts")
            return Choice(letter.text, self.read(tokens[2:]))
        return None

    def _list(self, tokens: Tokens) -> Answer | None:
        tokens = listed_conditions(tokens)
        together = thousands_joined(tokens)
        if len(together) != len(tokens):
            return self._read(together)
        parts = split(tokens, (";",))
        if len(parts) > 1:
            return joined([self.read(part) for part in parts], ";")
        words = {token.text for token in tokens if is_connective(token)}
        if words and (groups := self._named_groups(split(tokens, tuple(words)))):
            return groups
        parts = split(tokens, (",", *words))
        if len(parts) == 1:
            return None
        # `1, 2, and 3`: nothing stands between the comma and the word.
        filled = [part for part in parts if part]
        if len(parts) - len(filled) > (1 if words and "," in {one.text for one in tokens} else 0):
            raise UnreadError("an empty part of a list")
        is_or = any(word.casefold() in ("or", r"\vee") for word in words)
        connective = "or" if is_or else "and" if words else "list"
        answer = joined([self.read(part) for part in filled], connective)
        if isinstance(answer, Listed) and words & {r"\vee", r"\wedge"}:
            raise UnreadError("a logical sign between values")
        return answer

    def _named_groups(self, parts: list[Tokens]) -> Answer | None:
        """Read `x=1, y=2 or x=2, y=1`: a word between groups that name the same."""
        if not all(
            part and len(split(part, (",",))) > 1 and part[-1].text != "," for part in parts
        ):
            return None
        groups = [self.read(part) for part in parts]
        names = {
            tuple(sorted(name for name, _ in one.items)) if isinstance(one, Named) else ()
            for one in groups
        }
        is_same = len(names) == 1 and len(set(*names)) > 1
        return joined(groups, ";") if is_same else None

    def _combined_set(self, tokens: Tokens) -> Answer | None:
        for operator, name in (
            (r"\cup", "union"),
            (r"\setminus", "difference"),
            (r"\cap", "intersection"),
        ):
            parts = split(tokens, (operator,))
            if len(parts) > 1:
                return Combined(name, tuple(self.read(part) for part in parts))
        if len(tokens) > 2 and tokens[0].text in (r"\R", r"\Z", r"\N") and tokens[1].text == "-":
            return Combined("difference", (self.read(tokens[:1]), self.read(tokens[2:])))
        if len(tokens) == 1 and tokens[0].kind == "command":
            if tokens[0].text == r"\emptyset":
                return Elements(())
            if tokens[0].text == r"\ldots":
                return Ellipsis()
        return named_set(tokens) if tokens[0].kind == "command" else None

    def _whole_bracket(self, tokens: Tokens) -> Answer | None:
        opening = tokens[0].text
        if opening not in ("(", "[", r"\{", r"\langle") or matching(tokens, 0) != len(tokens) - 1:
            return None
        inner, closing = tokens[1:-1], tokens[-1].text
        if opening == r"\{":
            return self._set(inner)
        parts = split(inner, (",",))
        if len(parts) == 1 and len(split(inner, (";",))) > 1:
            parts = split(inner, (";",))
        if len(parts) == 1:
            return self.read(inner) if (opening, closing) == ("(", ")") else None
        if len(parts) != 2 and (opening == "[") != (closing == "]"):
            raise UnreadError("brackets that do not fit")
        if ("[" not in (opening,) and closing != "]") or len(parts) != 2:
            return Tupled(tuple(self.read(part) for part in parts))
        low, high = (read_value(part).formula for part in parts)
        return Interval(low, high, opening == "[", closing == "]")

    def _set(self, inner: Tokens) -> Answer:
        if not inner:
            return Elements(())
        for bar in ("|", ":"):
            parts = split(inner, (bar,))
            if len(parts) == 2:
                return self._set_builder(*parts)
        return Elements(tuple(self.read(part) for part in split(inner, (",", ";"))))

    def _set_builder(self, left: Tokens, condition: Tokens) -> Answer:
        sides = split(left, (r"\in",))
        name = name_of(sides[0])
        if name is None or len(sides) > 2:
            raise UnreadError("a set of formulas with a condition")
        region = self.read(condition)
        if len(sides) == 2:
            region = Combined("intersection", (self.read(sides[1]), region))
        return Solutions(name, region)

    def _environment(self, tokens: Tokens) -> Answer | None:
        if tokens[0].kind != "begin" or tokens[0].text not in ("cases", "aligned", "array"):
            return None
        if matching(tokens, 0) != len(tokens) - 1 or tokens[0].text == "array":
            return None
        rows = [[cell for cell in row if cell] for row in matrix_rows(tokens[1:-1])]
        has_conditions = any(len(row) == 2 and not _starts_relation(row[1]) for row in rows)
        if not has_conditions:
            return joined(
                [self.read([token for cell in row for token in cell]) for row in rows], "and"
            )
        if any(len(row) != 2 for row in rows):
            raise UnreadError("cases without conditions")
        return Pieces(
            tuple((self.read(value), self.read(_condition(when))) for value, when in rows)
        )

    def _point(self, tokens: Tokens) -> Answer | None:
        """Read `A(1,2)`: a point with its name."""
        is_name = (
            tokens[0].kind == "letters" and len(tokens[0].text) == 1 and tokens[0].text.isupper()
        )
        if not is_name or len(tokens) < 4 or tokens[1].text != "(":
            return None
        if matching(tokens, 1) != len(tokens) - 1:
            return None
        answer = self._whole_bracket(tokens[1:])
        return Named(((tokens[0].text, answer),)) if isinstance(answer, Tupled) else None


def _names_choice_again(tokens: Tokens) -> bool:
    """True if another letter of a choice stands in its text: `(A) 5, (B) 6` chooses nothing."""
    return any(
        token.kind in ("letters", "word")
        and len(token.text) == 1
        and "A" <= token.text <= "J"
        and tokens[i + 1].text in (")", ":", ".")
        and (token.is_spaced or (i > 0 and tokens[i - 1].text == "(" and tokens[i - 1].is_spaced))
        and (i == 0 or tokens[i - 1].text != "(" or tokens[i + 1].text == ")")
        for i, token in enumerate(tokens[:-1])
    )


def _ratio(parts: list[Answer]) -> Answer:
    """Return a ratio of three and more, in multiples of its first part."""
    first = parts[0]
    if all(isinstance(one, Value) and one.unit == NO_UNIT for one in parts):
        assert isinstance(first, Value)
        parts = [
            Value(quotient(one.formula, first.formula)) for one in parts if isinstance(one, Value)
        ]
    return Phrase((Words("ratio"), *parts))


def _opens_text(tokens: Tokens) -> bool:
    first = tokens[0]
    if first.text == "-":
        return first.is_spaced and len(tokens) > 1 and not tokens[1].is_spaced
    is_operator = first.kind == "sign" and first.text not in ("$", "{", "(", "[", r"\{")
    is_relation = first.text in (
        r"\cdot",
        r"\times",
        r"\div",
        r"\le",
        r"\ge",
        r"\ne",
        r"\in",
        r"\pm",
    )
    return not (is_operator or is_relation or (first.text == "(" and not first.is_spaced))


def _starts_relation(tokens: Tokens) -> bool:
    return bool(tokens) and tokens[0].text in ("=", "<", ">", r"\le", r"\ge", r"\equiv")


def _condition(tokens: Tokens) -> Tokens:
    words = ("if", "for", "when", "where")
    return tokens[1:] if len(tokens) > 1 and tokens[0].text.casefold() in words else tokens
