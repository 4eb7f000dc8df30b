"""Lists of answers: numbers written with commas, and what parts mean together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from prefix_rft_rllib.envs.verifiers.math_formula import matching
from prefix_rft_rllib.envs.verifiers.math_plain import is_connective
from prefix_rft_rllib.envs.verifiers.math_structure import (
    Answer,
    Combined,
    Listed,
    Named,
    Relation,
    Solutions,
    Tupled,
    Value,
)
from prefix_rft_rllib.envs.verifiers.math_tokens import Token

Tokens = Sequence[Token]

_COMMA = Token("sign", ",")
_MAX_CONDITION = 40
"""Conditions of more tokens are not looked for."""
_CONDITION_WORDS = frozenset(("for", "where", "with"))


def thousands_joined(tokens: Tokens) -> Tokens:
    """Join `32,348` and `1 000` to one number; any other comma makes a list.

    Only commas outside brackets that all belong to one number count, with groups of three digits
    and no blank: `(100,200)` is a pair, `32, 349` is a list.
    """
    run = _first_run(tokens)
    if run is None:
        return tokens
    start, end = run
    commas = [i for i, token in enumerate(tokens) if token.text == "," and token.kind == "sign"]
    if any(not start < i < end for i in commas):
        return tokens
    digits = "".join(token.text for token in tokens[start:end] if token.kind == "number")
    return (*tokens[:start], dataclasses.replace(tokens[start], text=digits), *tokens[end:])


def _first_run(tokens: Tokens) -> tuple[int, int] | None:
    """Return where the first number in groups of three digits begins and ends."""
    for start, token in enumerate(tokens):
        if token.text in ("(", "[", r"\\{", "{"):
            return None
        is_first = token.kind == "number" and 1 <= len(token.text) <= 3 and token.text.isdigit()
        if not is_first or token.text.startswith("0"):
            continue
        if start and tokens[start - 1].text in ("^", "_", ",", "/"):
            continue
        end = start + 1
        while _is_group(tokens, end):
            end += 2
        if end > start + 1:
            return start, end
        while _is_blank_group(tokens, end):
            end += 1
        if end > start + 1 and (end == len(tokens) or tokens[end].text not in ("/", "^")):
            return start, end
    return None


def _is_group(tokens: Tokens, comma: int) -> bool:
    if comma + 1 >= len(tokens) or tokens[comma].text != ",":
        return False
    group = tokens[comma + 1]
    is_number = group.kind == "number" and len(group.text.partition(".")[0]) == 3
    return is_number and not group.is_spaced and not tokens[comma].is_spaced


def _is_blank_group(tokens: Tokens, index: int) -> bool:
    if index >= len(tokens) or tokens[index].kind != "number" or not tokens[index].is_spaced:
        return False
    return len(tokens[index].text.partition(".")[0]) == 3


def decimal_comma_joined(tokens: Tokens) -> Tokens:
    """Join `3,5` to one decimal if it is the only comma and no blank follows it."""
    commas = [i for i, token in enumerate(tokens) if token.text == "," and token.kind == "sign"]
    if len(commas) != 1 or not 0 < commas[0] < len(tokens) - 1:
        return tokens
    before, after = tokens[commas[0] - 1], tokens[commas[0] + 1]
    is_decimal = all(one.kind == "number" and one.text.isdigit() for one in (before, after))
    is_thousands = len(after.text) == 3 and not before.text.startswith("0")
    if (
        not is_decimal
        or is_thousands
        or after.is_spaced
        or any(one.text in "([{" for one in tokens[: commas[0]])
    ):
        return tokens
    number = dataclasses.replace(before, text=f"{before.text}.{after.text}")
    return (*tokens[: commas[0] - 1], number, *tokens[commas[0] + 2 :])


def listed_conditions(tokens: Tokens) -> Tokens:
    r"""Write the condition of a variable behind a comma: `k\pi (k \in Z)`, `2k for k \in Z`.

    Args:
        tokens: An answer.

    Returns:
        The same with a comma in front of the condition and without its bracket or word; `tokens`
        if there is none.
    """
    last = _last_opening(tokens)
    if last and _names_range(tokens[last + 1 : -1]):
        return (*tokens[:last], _COMMA, *tokens[last + 1 : -1])
    for index, token in enumerate(tokens[:-1]):
        is_word = token.kind == "word" and token.text.casefold() in _CONDITION_WORDS
        if index and is_word and _names_range(behind := _without_all(tokens[index + 1 :])):
            before = tokens[: index - (tokens[index - 1].text == ",")]
            return (*before, _COMMA, *behind)
    return tokens


def _last_opening(tokens: Tokens) -> int | None:
    """Return the index of the bracket that the last token closes; None if it closes none."""
    recent = range(len(tokens) - 1, max(len(tokens) - _MAX_CONDITION, 0) - 1, -1)
    start = next((i for i in recent if tokens[i].text == "("), None)
    is_closed = start is not None and matching(tokens, start) == len(tokens) - 1
    return start if is_closed else None


def _without_all(tokens: Tokens) -> Tokens:
    is_all = tokens[0].kind == "word" and tokens[0].text.casefold() in ("all", "any", "every")
    return tokens[1:] if is_all else tokens


def _names_range(tokens: Tokens) -> bool:
    r"""True for a variable and what it may be: `k \in Z`, `x > 0`."""
    return (
        2 < len(tokens) < _MAX_CONDITION
        and tokens[0].kind == "letters"
        and tokens[1].text in ("<", ">", r"\le", r"\ge", r"\ne", r"\in")
        and not any(is_connective(token) for token in tokens)
    )


def joined(parts: Sequence[Answer], connective: str) -> Answer:
    """Return what parts of a list mean together.

    Args:
        parts: The parts, in order.
        connective: "or", "and", ";", or "list" for commas alone.

    Returns:
        `Named` for values with names, a combined set for inequalities with a word between them,
        else `Listed`.
    """
    are_conditions = all(_is_condition(one) or _is_single(one) for one in parts)
    operation = {"or": "union", "and": "intersection"}.get(connective)
    if operation and are_conditions and any(map(_is_condition, parts)):
        return Combined(operation, tuple(parts))
    first = parts[0]
    has_groups = connective == ";" and any(
        isinstance(one, Named) and len(one.items) > 1 for one in parts
    )
    if isinstance(first, Named) and not has_groups:
        rest = parts[1:]
        names = [name for name, _ in first.items]
        is_one_of = connective == "or" and any(
            isinstance(one, Named) and [name for name, _ in one.items] != names for one in rest
        )
        if is_one_of:
            return Listed(tuple(parts), is_either=True)
        if all(isinstance(one, Named) for one in parts):
            return Named(
                tuple(item for one in parts if isinstance(one, Named) for item in one.items)
            )
        if len(names) == 1 and all(isinstance(one, Value | Tupled) for one in rest):
            return Named((first.items[0], *((names[0], one) for one in rest)))
        if all(isinstance(one, Tupled) and len(one.items) == len(names) for one in rest):
            return Listed((Tupled(tuple(answer for _, answer in first.items)), *rest))
    return Listed(tuple(parts), is_either=connective == "or")


def _is_condition(answer: Answer) -> bool:
    return isinstance(answer, Solutions | Combined) or (
        isinstance(answer, Relation) and answer.sign != "="
    )


def _is_single(answer: Answer) -> bool:
    return isinstance(answer, Named) and len(answer.items) == 1
