r"""Names before an equals sign: `x`, `a_{n}`, `f(x)`, `m\\angle ABC`."""

from __future__ import annotations

from collections.abc import Sequence

from prefix_rft_rllib.envs.verifiers.math_formula import (
    GREEK,
    matching,
)
from prefix_rft_rllib.envs.verifiers.math_tokens import Token

Tokens = Sequence[Token]


def name_of(tokens: Tokens) -> str | None:
    r"""Return the name that stands before a value, or None: `x`, `a_{n}`, `f(x)`, `m\angle ABC`.

    Args:
        tokens: Everything left of an equals sign.

    Returns:
        The name in one spelling; of a function with a variable as argument, the function's.
    """
    texts = [token.text for token in tokens]
    if tokens and all(token.kind == "word" for token in tokens):
        return " ".join(texts).casefold()
    if (
        texts
        and texts[0] == r"\frac"
        and all(
            (one.kind == "letters" and one.text.isupper()) or one.text in (r"\frac", "{", "}")
            for one in tokens
        )
    ):
        return "".join(texts)
    if len(texts) > 2 and texts[0] == texts[-1] == "|":
        inner = tokens[1:-1]
        return "|" + inner[0].text + "|" if len(inner) == 1 and inner[0].text.isupper() else None
    if texts and texts[0] in (r"\vec", r"\overrightarrow"):
        letters = [text for text in texts[1:] if text not in ("{", "}")]
        return _name_of_vector(texts[0], letters)
    base = [token for token in tokens if token.text not in (r"\angle", r"\triangle", r"\overline")]
    if not base or (base[0].kind != "letters" and base[0].text not in GREEK):
        return None
    has_decoration = len(base) != len(tokens)
    rest = base[1:]
    if base[0].text in (r"\pi", r"\infty"):
        return None
    if has_decoration:
        return (
            "".join(t for t in texts if t not in "{}")
            if all(one.kind == "letters" or one.text in "{}" for one in base)
            else None
        )
    is_run = base[0].kind == "letters" and len(base[0].text) > 1
    if is_run and not (base[0].text.isupper() and not rest):
        return None
    return _name_with_rest(base[0].text, rest)


def _name_of_vector(command: str, letters: Sequence[str]) -> str | None:
    """Return a vector's name as the parser writes it: one letter needs no arrow."""
    if not letters or not "".join(letters).isalpha():
        return None
    return letters[0] if len("".join(letters)) == 1 else command + "".join(letters)


def _name_with_rest(name: str, rest: Tokens) -> str | None:
    """Read subscripts, primes and an argument behind a letter."""
    while rest:
        if rest[0].text == "'":
            name, rest = name + "'", rest[1:]
            continue
        is_script = rest[0].text == "_" or (
            rest[0].text == "^" and name not in ("e", "i") and _is_inverse(rest)
        )
        if is_script and len(rest) > 1:
            end = matching(rest, 1) if rest[1].text == "{" else 1
            if end is None:
                return None
            name += rest[0].text + "".join(
                one.text for one in rest[1 : end + 1] if one.text not in "{}"
            )
            rest = rest[end + 1 :]
            continue
        if rest[0].text != "(" or matching(rest, 0) != len(rest) - 1:
            return None
        inner = rest[1:-1]
        is_variable = all(
            (one.kind in ("letters", "word") and not one.text.isupper())
            or one.text in (",", *GREEK)
            for one in inner
        )
        return name if is_variable else name + "".join(one.text for one in rest)
    return name


def _is_inverse(rest: Tokens) -> bool:
    return [one.text for one in rest[1:5]] == ["{", "-", "1", "}"]
