r"""Relations: equations, inequalities, memberships and residue classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prefix_rft_rllib.envs.verifiers.math_formula import (
    Formula,
    Symbol,
    matching,
    number,
    split,
)
from prefix_rft_rllib.envs.verifiers.math_names import name_of
from prefix_rft_rllib.envs.verifiers.math_parser import parse
from prefix_rft_rllib.envs.verifiers.math_quantities import read_value
from prefix_rft_rllib.envs.verifiers.math_signs import expanded
from prefix_rft_rllib.envs.verifiers.math_structure import (
    Answer,
    Combined,
    Congruence,
    Elements,
    Interval,
    Listed,
    Named,
    NamedSet,
    Relation,
    Solutions,
    Tupled,
)
from prefix_rft_rllib.envs.verifiers.math_tokens import Token, UnreadError

Tokens = Sequence[Token]

_SIGNS = ("=", "<", ">", r"\le", r"\ge", r"\ne", r"\approx", r"\in", r"\notin")
_PARTS_OF_SETS = {
    "": "",
    **dict.fromkeys(("^ +", "_ +", "_ > 0", "^ *", "_ \\ge 1"), "+"),
    **dict.fromkeys(("_ \\ge 0", "^ + _ 0", "_ 0 ^ +"), ">=0"),
}
_INEQUALITIES = {"<": "<", ">": "<", r"\le": "<=", r"\ge": "<=", r"\ne": "!="}


def read_congruence(tokens: Tokens) -> Answer | None:
    r"""Read `x \equiv 3 \pmod 7`, `3 \bmod 7` and `x = 3 (mod 7)`; None if there is no modulus.

    Raises:
        UnreadError: If it is broken.
    """
    moduli = [index for index, token in enumerate(tokens) if _is_modulus(token)]
    if len(moduli) != 1:
        return None
    before, after = tokens[: moduli[0]], tokens[moduli[0] + 1 :]
    if before and before[-1].text == "(":
        if not after or after[-1].text != ")":
            raise UnreadError("a modulus that is not closed")
        before, after = before[:-1], after[:-1]
    sides = split(before, (r"\equiv", "="))
    name = name_of(sides[0]) if len(sides) == 2 else ""
    if name is None or len(sides) > 2:
        raise UnreadError("a congruence between formulas")
    parts = split(sides[-1], (",", "or", "and"))
    residues = tuple(residue for part in parts for residue in expanded(parse(part)))
    return Congruence(name, residues, parse(after))


def _is_modulus(token: Token) -> bool:
    return token.text == r"\mod" or (token.text == "mod" and token.kind == "word")


def read_relation(tokens: Tokens, read: Callable[[Tokens], Answer]) -> Answer | None:
    """Read a relation; None if no sign of one stands outside the brackets.

    Args:
        tokens: The tokens.
        read: Reads a side.

    Raises:
        UnreadError: If it is broken.
    """
    signs = _signs(tokens)
    if not signs:
        return None
    sides = [list(side) for side in split(tokens, _SIGNS)]
    if signs == [r"\approx"] and sides[0] and sides[1]:
        return Named(((name, read(sides[1])),)) if (name := name_of(sides[0])) else read(sides[0])
    if r"\approx" in signs:
        cut = signs.index(r"\approx")
        sides, signs = sides[: cut + 1], signs[:cut]
    if any(not side for side in sides):
        raise UnreadError("a relation without one side")
    if not signs:
        return read(sides[0])
    if r"\in" in signs or r"\notin" in signs:
        return _membership(sides, signs, read)
    if all(sign == "=" for sign in signs):
        return _equation(sides, read)
    if "=" in signs:
        raise UnreadError("an equation among inequalities")
    relations = tuple(
        _inequality(sign, left, right)
        for sign, left, right in zip(signs, sides[:-1], sides[1:], strict=True)
    )
    return relations[0] if len(relations) == 1 else Combined("intersection", relations)


def _signs(tokens: Tokens) -> list[str]:
    signs, index = [], 0
    while index < len(tokens):
        token = tokens[index]
        if token.kind == "begin" or token.text in ("(", "[", "{", r"\{", r"\langle"):
            end = matching(tokens, index)
            if end is None:
                raise UnreadError("a bracket that is not closed")
            index = end
        elif token.text in _SIGNS and token.kind in ("sign", "command"):
            signs.append(token.text)
        index += 1
    return signs


def _membership(
    sides: list[list[Token]], signs: list[str], read: Callable[[Tokens], Answer]
) -> Answer:
    if len(signs) != 1:
        raise UnreadError("several memberships")
    name, region = name_of(sides[0]), named_set(sides[1]) or read(sides[1])
    if name is None:
        names = _tuple_of_names(sides[0])
        if names is None:
            raise UnreadError("a membership of a formula")
        return region
    if isinstance(region, Tupled) and len(region.items) == 2:
        region = as_interval(region)
    if not isinstance(region, Interval | Elements | NamedSet | Combined | Solutions):
        raise UnreadError("a membership in no set")
    if signs[0] == r"\notin":
        region = Combined("difference", (NamedSet("R"), region))
    return Solutions(name, region)


def named_set(tokens: Tokens) -> NamedSet | Interval | None:
    r"""Read a set named by a letter: `\mathbb{Z}`, `\mathbf{R}^+`, `\mathbb{Z}_{\ge 0}`.

    Args:
        tokens: All tokens of it.

    Returns:
        The set, positive real numbers as an interval; None if it is no such set.
    """
    texts = [token.text for token in tokens if token.text not in ("{", "}")]
    letter = texts[0].removeprefix("\\") if texts else ""
    if len(letter) != 1 or letter not in "RZNQC":
        return None
    which = _PARTS_OF_SETS.get(" ".join(texts[1:]))
    if which is None:
        return None
    if letter == "R" and which:
        infinity = Symbol(r"\infty")
        return Interval(number("0"), infinity, has_low=which == ">=0", has_high=False)
    return NamedSet("Z+" if letter + which == "N+" else letter + which)


def as_interval(pair: Tupled) -> Interval:
    """Read a pair as the open interval between its values.

    Raises:
        UnreadError: If an end is no formula.
    """
    low, high = (getattr(item, "formula", None) for item in pair.items)
    if low is None or high is None:
        raise UnreadError("an interval between no numbers")
    return Interval(low, high, has_low=False, has_high=False)


def _equation(sides: list[list[Token]], read: Callable[[Tokens], Answer]) -> Answer:
    chain = [name_of(side) for side in sides[:-1]]
    if len(chain) > 1 and all(name and len(name) == 1 and name.islower() for name in chain):
        last = read(sides[-1])
        return Named(tuple((name, last) for name in chain if name))
    if (name := name_of(sides[0])) is not None:
        return Named(((name, read(sides[-1])),))
    names = _tuple_of_names(sides[0])
    if names is not None:
        answer = read(sides[-1])
        if isinstance(answer, Tupled) and len(answer.items) == len(names):
            return Named(tuple(zip(names, answer.items, strict=True)))
        if isinstance(answer, Listed):
            return answer
        raise UnreadError("a tuple of names for no tuple")
    return Relation("=", read_value(sides[0]).formula, read_value(sides[-1]).formula)


def _tuple_of_names(tokens: Tokens) -> list[str] | None:
    ends = tokens[0].text + tokens[-1].text if tokens else ""
    if len(tokens) < 5 or ends != "()" or matching(tokens, 0) != len(tokens) - 1:
        return None
    names = [name_of(part) for part in split(tokens[1:-1], (",",))]
    return [name for name in names if name is not None] if all(names) and len(names) > 1 else None


def _inequality(sign: str, left: Tokens, right: Tokens) -> Relation:
    lower, upper = _side(left), _side(right)
    if sign in (">", r"\ge"):
        lower, upper = upper, lower
    return Relation(_INEQUALITIES[sign], lower, upper)


def _side(tokens: Tokens) -> Formula:
    name = name_of(tokens)
    return read_value(tokens).formula if name is None else Symbol(name)
