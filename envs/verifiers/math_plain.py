r"""Answers without structure: words, numbers in a base; and what stands around any answer."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from prefix_rft_rllib.envs.verifiers.math_formula import (
    Formula,
    Number,
    Operation,
    Symbol,
    matching,
)
from prefix_rft_rllib.envs.verifiers.math_parser import MAX_DEPTH
from prefix_rft_rllib.envs.verifiers.math_structure import (
    Answer,
    Based,
    Elements,
    NamedSet,
    Value,
    Words,
)
from prefix_rft_rllib.envs.verifiers.math_tokens import Token, UnreadError
from prefix_rft_rllib.envs.verifiers.math_words import FILLERS, number_in_words, share_in_words

Tokens = Sequence[Token]

_INFINITY: Mapping[str, Formula] = {
    "infinity": Symbol(r"\infty"),
    "positive infinity": Symbol(r"\infty"),
    "negative infinity": Operation("neg", (Symbol(r"\infty"),)),
}

_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_TAIL = re.compile(r"(?:(?<!\\)\\[ !,;]?|(?<!\.)[.,;:](?!\.)|\s)+$")
_LABEL = re.compile(
    r"(?:so |thus |hence |therefore )?(?:the )?(?:final |correct )?"
    r"(?:answer|result|solution|option|choice)(?: is| are| equals)?"
)
_EMPTY_SET = frozenset(
    (
        "no solution",
        "no solutions",
        "empty set",
        "the empty set",
        "no real solution",
        "no real solutions",
    )
)
_BARE_POINT = re.compile(r"(?<![\d.])\.(?=\\(?:overline|bar|dot)(?![a-z]))")
_SYSTEM = re.compile(
    r"\\left\s*\\\{\s*\\begin\s*\{(array|aligned|matrix)\}(?:\s*\{[lcr|\s]*\})?(.*?)"
    r"\\end\s*\{\1\}\s*\\right\s*\.",
    re.DOTALL,
)
_SAME_WORDS = {
    "dne": "does not exist",
    **dict.fromkeys(("infinite", "infinitely many solutions"), "infinitely many"),
}
_ALL_REALS = frozenset(("all real numbers", "all reals", "the real numbers", "real numbers"))


def stripped(text: str) -> str:
    r"""Strip the punctuation and the delimiters around the whole text.

    A braced colon is a colon, `.\overline{3}` gets its zero, and rows behind a single brace are
    `cases`.
    """
    previous = None
    text = _SYSTEM.sub(lambda rows: rf"\begin{{cases}}{rows[2]}\end{{cases}}", text)
    text = _BARE_POINT.sub("0.", text.replace("{:}", ":"))
    while text != previous:
        previous = text
        text = _TAIL.sub("", text.strip()).strip()
        for opening, closing in _DELIMITERS:
            if len(text) > len(opening) + len(closing) and text.startswith(opening):
                inner = text[len(opening) : -len(closing)]
                is_whole = text.endswith(closing) and not inner.endswith("\\")
                if is_whole and opening not in inner and closing not in inner:
                    text = inner.strip()
    return text


def trimmed(tokens: Tokens) -> Tokens:
    """Strip braces around everything and punctuation at the end."""
    for _ in range(MAX_DEPTH):
        previous = len(tokens)
        while (
            tokens and tokens[-1].kind == "sign" and tokens[-1].text in (".", ",", ";", ":", r"\\")
        ):
            tokens = tokens[:-1]
        while tokens and tokens[0].kind == "sign" and tokens[0].text in (":", "="):
            tokens = tokens[1:]
        is_group = tokens and tokens[0].text == "{" and matching(tokens, 0) == len(tokens) - 1
        if is_group and not any(token.text == r"\choose" for token in tokens):
            tokens = tokens[1:-1]
        if len(tokens) == previous:
            return tokens
    raise UnreadError("braces nested too deep")


def unlabelled(tokens: Tokens) -> Tokens:
    """Drop `the answer is` and words such as `approximately` in front."""
    words = []
    for token in tokens:
        if token.kind != "word":
            break
        words.append(token.text.casefold())
    for length in range(min(len(words), 7), 0, -1):
        if length < len(tokens) and _LABEL.fullmatch(" ".join(words[:length])):
            rest = tokens[length:]
            return unlabelled(trimmed(rest[1:] if rest[0].text in (":", "=") else rest))
    if len(tokens) > 1 and ((words and words[0] in FILLERS) or tokens[0].text == r"\approx"):
        return unlabelled(trimmed(tokens[1:]))
    return tokens


def is_connective(token: Token) -> bool:
    """True for `and` and `or`, in words or as a sign."""
    return (token.kind == "word" and token.text.casefold() in ("and", "or")) or token.text in (
        r"\wedge",
        r"\vee",
    )


def read_words(tokens: Tokens) -> Answer | None:
    """Read an answer of words alone, or one name in capitals."""
    if len(tokens) == 1 and tokens[0].kind in ("letters", "word") and len(tokens[0].text) == 1:
        return Value(Symbol(tokens[0].text))
    if len(tokens) == 1 and tokens[0].kind == "letters" and _is_name(tokens[0].text):
        name = tokens[0].text.casefold()
        return Words(_SAME_WORDS.get(name, name))
    if not all(token.kind == "word" for token in tokens) or any(map(is_connective, tokens)):
        return None
    words = tuple(token.text.casefold() for token in tokens)
    text = _SAME_WORDS.get(" ".join(words), " ".join(words))
    if text in _EMPTY_SET:
        return Elements(())
    if text in _ALL_REALS:
        return NamedSet("R")
    if text in _INFINITY:
        return Value(_INFINITY[text])
    if (spelled := number_in_words(words)) is not None:
        return Value(Number(Fraction(spelled)))
    if (share := share_in_words(words)) is not None:
        return Value(Number(share))
    return Words(text)


def _is_name(run: str) -> bool:
    """True for letters alone whose order matters: `CBAD`, `red`; `xy` and `abc` are products."""
    return run.isupper() or (len(run) >= 3 and bool(set(run) & set("eiou")))


def read_based(tokens: Tokens) -> Answer | None:
    r"""Read `204_5`, `1A_{16}`, `1011_{\text{two}}` and `1011 \text{ (base 2)}`."""
    is_negative = tokens[0].text == "-"
    body = tokens[is_negative:]
    closing = matching(body, 0) if body and body[0].text == "(" else None
    if closing:
        body = (*body[1:closing], *body[closing + 1 :])
    end = next((i for i, one in enumerate(body) if not _is_digits(one)), len(body))
    digits = "".join(token.text for token in body[:end])
    rest = [token for token in body[end:] if token.text not in ("(", ")", "{", "}")]
    if not re.fullmatch(r"[0-9A-Z]*[0-9][0-9A-Z]*(?:\.[0-9]+)?", digits) or len(rest) != 2:
        return None
    if not (rest[0].text == "_" or rest[0].text.casefold() == "base"):
        return None
    base = int(rest[1].text) if rest[1].text.isdecimal() else number_in_words((rest[1].text,))
    if base is None or not 2 <= base <= 36:
        raise UnreadError("a number base")
    if any(int(digit, 36) >= base for digit in digits if digit != "."):
        raise UnreadError(f"digits beyond base {base}")
    return Based("-" * is_negative + (digits.lstrip("0") or "0"), base)


def _is_digits(token: Token) -> bool:
    return token.kind in ("number", "letters") or (token.kind == "word" and token.text.isupper())


def refuse_unknown_operators(tokens: Tokens) -> None:
    r"""Refuse what looks like a product and is none: `f \circ g`, `\frac{dy}{dx}`.

    Raises:
        UnreadError: If there is such a thing.
    """
    for before, token in itertools.pairwise(tokens):
        if token.text == r"\circ" and before.kind == "letters":
            raise UnreadError("a composition of functions")
    letters = [token.text for token in tokens if token.kind == "letters"]
    divides = any(token.text in (r"\frac", "/") for token in tokens)
    starts = [text for text in letters if text.startswith("d") and len(text) <= 2]
    if divides and len(starts) > 1 and any(len(text) == 2 for text in starts):
        raise UnreadError("a derivative")
