r"""A small reader of LaTeX answers, made apart from the verifier to judge it.

It knows numbers, letters, fractions, roots, powers, sums, products, a few functions, lists, tuples
and intervals, and says "unknown" to all else. Letters are numbers drawn by name, so that two
formulas are equal where their values are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from mpmath import mp, mpc, mpf

mp.dps = 40
_TOLERANCE = mpf("1e-4")
_TOKEN = re.compile(r"\s*(\\[a-zA-Z]+|\\.|\d+\.\d+|\.\d+|\d+|.)", re.DOTALL)
_DROPPED = re.compile(r"\\left|\\right|\\[!,;: ]|\\displaystyle|\\q?quad|~|\$")
_TEXT = re.compile(
    r"\\(?:text|mbox|mathrm|textbf|textrm|mathbf|textit)\s*\{[^{}]*\}(?:\^\{?\d\}?)?"
)
_SPELLINGS = (
    ("{,}", ""),
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\cdot", "*"),
    ("\\times", "*"),
    ("\\div", "/"),
    ("^{\\circ}", ""),
    ("^\\circ", ""),
    ("\\%", ""),
    ("%", ""),
    ("\\{", "\\lbrace "),
    ("\\}", "\\rbrace "),
    ("\\le ", "\\leq "),
    ("\\ge ", "\\geq "),
    ("\u2212", "-"),
)
_JOINT = re.compile(r",?\s*\\text\s*\{\s*,?\s*(?:and|or)\s*\}")
_CHOICE = re.compile(r"^\(?[A-E]\)\s*(?=\S)")
_NAME = re.compile(r"^(?:[a-zA-Z](?:\([a-zA-Z]\))?|\([a-z](?:,[a-z])+\))\s*(?:=|\\in)\s*(?=\S)")
_BOUNDS = re.compile(r"([^<>=]+)(<|\\leq?)\s*[a-z]\s*(<|\\leq?)([^<>=]+)")
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "\\sin": mp.sin,
    "\\cos": mp.cos,
    "\\tan": mp.tan,
    "\\ln": mp.log,
    "\\log": mp.log10,
    "\\arctan": mp.atan,
}
_CLOSING = {"(": ")", "[": "]", "\\lbrace": "\\rbrace", "{": "}"}


class _UnknownError(Exception):
    pass


def bare(answer: str) -> str:
    """Return an answer without blanks, texts, choice letter, signs of percent, degrees, dollars."""
    answer = _CHOICE.sub("", _JOINT.sub(",", answer))
    answer = _TEXT.sub("", answer).replace("\\$", "")
    for old, new in _SPELLINGS:
        answer = answer.replace(old, new)
    answer = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", _DROPPED.sub("", answer))
    return re.sub(r"\s+", " ", answer).strip().rstrip(" .")


def value_of(answer: str) -> Any:
    """Return the value of a bare answer; None where this reader does not know it.

    Returns:
        A number, or a tuple of bracket and values; no bracket for a list.
    """
    text = re.sub(r"^(.+)=\s*([a-zA-Z])$", r"\2=\1", bare(answer))
    text = re.sub(_NAME, "", text)
    if bounds := _BOUNDS.fullmatch(text):
        ends = ["[" if "e" in bounds[2] else "(", "]" if "e" in bounds[3] else ")"]
        text = f"{ends[0]}{bounds[1]},{bounds[4]}{ends[1]}"
    try:
        reader = _Reader(_TOKEN.findall(text))
        value = reader.items("")
        reader.expect("")
    except (_UnknownError, ZeroDivisionError, OverflowError, ValueError, RecursionError):
        return None
    return value


def difference(first: str, second: str) -> str:
    """Return how two answers differ: "equal", "words" (in words alone), "different", "unknown".

    Numbers within 0.01% are not called different, nor is a number and 100 times it where one has
    a sign of percent.
    """
    texts = [_words(answer) for answer in (first, second)]
    equal = "equal" if texts[0] == texts[1] else "words"
    formulas = [bare(answer).replace(" ", "") for answer in (first, second)]
    if formulas[0] == formulas[1]:
        return equal
    if not any(map(str.isdigit, first + second)):
        letters = [re.sub(r"\\[a-z]+|[^a-z]", "", answer.lower()) for answer in (first, second)]
        if letters[0] == letters[1] and "\\text" in first + second:
            return "equal"
    choices = [re.fullmatch(r"\(([A-E])\)(.*)", answer.strip()) for answer in (first, second)]
    letters = [choice[1] for choice in choices if choice]
    if len({*letters}) == 1 and len(letters) == 2 and any(c and not c[2] for c in choices):
        return "equal"  # A letter stands for itself and its text.
    one, two = value_of(first), value_of(second)
    if one is None or two is None or not (_is_proper(one) and _is_proper(two)):
        return "unknown"
    if _is_ordered(one) != _is_ordered(two):
        return "unknown"
    factors = [1, 100, mpf(1) / 100] if "%" in first + second else [1]
    return equal if any(_same(_scaled(one, f), two) for f in factors) else "different"


def _words(answer: str) -> str:
    """Return the letters in the texts of an answer, its choice letter too."""
    answer = _JOINT.sub(",", answer)
    texts = "".join([*_CHOICE.findall(answer), *_TEXT.findall(answer)])
    return re.sub(r"[^a-z0-9]", "", texts.lower().replace("text", ""))


def _is_proper(value: Any) -> bool:
    """Return whether a value is no interval that is empty or closed at infinity."""
    if not (isinstance(value, tuple) and len(value[1]) == 2 and {*value[0]} & {"[", "]"}):
        return True
    low, high = value[1]
    if isinstance(low, tuple) or isinstance(high, tuple) or mp.im(low) or mp.im(high):
        return False
    is_open = (not mp.isinf(low) or value[0][0] == "(") and (
        not mp.isinf(high) or value[0][1] == ")"
    )
    return bool(low < high) and is_open


def _is_ordered(value: Any) -> bool:
    return isinstance(value, tuple) and value[0][:1] in ("(", "[")


def _scaled(value: Any, factor: Any) -> Any:
    return value if isinstance(value, tuple) or factor == 1 else value * factor


def _same(one: Any, two: Any) -> bool:
    if not (isinstance(one, tuple) and isinstance(two, tuple)):
        if isinstance(one, tuple) or isinstance(two, tuple):
            return False
        if mp.isinf(one) or mp.isinf(two):
            return bool(one == two)
        return abs(one - two) <= _TOLERANCE * max(abs(one), abs(two), _TOLERANCE)
    (bracket, items), (other, others) = one, two
    is_ordered = _is_ordered(one) and _is_ordered(two)
    if len(items) != len(others) or (is_ordered and bracket != other):
        return False
    left = list(others)
    for item in items:
        at = next((i for i, o in enumerate(left[:1] if is_ordered else left) if _same(item, o)), -1)
        if at < 0:
            return False
        del left[at]
    return True


class _Reader:
    """Reads tokens from left to right, by rules of precedence."""

    def __init__(self, tokens: list[str]):
        self._tokens = [*[token for token in tokens if token.strip()], ""]
        self._at = 0

    def _peek(self) -> str:
        return self._tokens[self._at]

    def _next(self) -> str:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def expect(self, token: str) -> None:
        if self._next() != token:
            raise _UnknownError

    def items(self, opening: str) -> Any:
        """Read values between commas; one alone is itself but in braces."""
        values = [self._sum()]
        while self._peek() == ",":
            self._next()
            values.append(self._sum())
        closing = self._peek()
        if len(values) == 1 and opening != "\\lbrace":
            return values[0]
        return (opening + closing, values) if opening and opening != "{" else ("", values)

    def _sum(self) -> Any:
        total = self._product()
        while self._peek() in ("+", "-"):
            sign = 1 if self._next() == "+" else -1
            total = _number(total) + sign * _number(self._product())
        return total

    def _product(self) -> Any:
        if self._peek() in ("+", "-"):
            return (1 if self._next() == "+" else -1) * _number(self._product())
        total = self._power()
        while self._peek() not in ("", "+", "-", ",", ")", "]", "}", "\\rbrace", "|"):
            if self._peek() == "/":
                self._next()
                total = _number(total) / _number(self._power())
            else:
                if self._peek() == "*":
                    self._next()
                total = _number(total) * _number(self._power())
        return total

    def _power(self) -> Any:
        base = self._atom()
        while self._peek() in ("^", "!"):
            if self._next() == "!":
                base = mp.factorial(_number(base))
            else:
                exponent = _number(self._argument())
                if abs(exponent) > 10_000:
                    raise _UnknownError
                base = mp.power(_number(base), exponent)
        return base

    def _argument(self) -> Any:
        if self._peek() == "{":
            return self._atom()
        token = self._peek()
        if token.isdigit() and len(token) > 1:  # `\frac12` has two arguments of one digit.
            self._tokens[self._at] = token[1:]
            return mpf(token[0])
        if token == "-":
            self._next()
            return -_number(self._argument())
        return self._atom()

    def _atom(self) -> Any:
        token = self._next()
        if token[:1].isdigit() or (token[:1] == "." and len(token) > 1):
            return mpf(token)
        if token in ("\\frac", "\\binom"):
            first, second = _number(self._argument()), _number(self._argument())
            return first / second if token == "\\frac" else mp.binomial(first, second)
        if token == "\\sqrt":
            return self._root()
        if token in _FUNCTIONS:
            return _FUNCTIONS[token](_number(self._power()))
        if token == "|":
            value = abs(_number(self._sum()))
            self.expect("|")
            return value
        if token in _CLOSING:
            return self._bracket(token)
        return _named(token)

    def _root(self) -> Any:
        degree = mpf(2)
        if self._peek() == "[":
            self._next()
            degree = _number(self._sum())
            self.expect("]")
        radicand = mpf(self._next()) if self._peek().isdigit() else _number(self._argument())
        return mp.power(radicand, 1 / degree)

    def _bracket(self, opening: str) -> Any:
        value = self.items(opening)
        closing = self._next()
        mixed = isinstance(value, tuple) and {opening, closing} <= {"(", ")", "[", "]"}
        if closing != _CLOSING[opening] and not mixed:
            raise _UnknownError
        return value


def _named(token: str) -> Any:
    known = {"\\pi": mp.pi, "e": mp.e, "i": mpc(0, 1), "\\infty": mp.inf}
    if token in known:
        return +known[token]
    if re.fullmatch(r"[a-zA-Z]|\\(?:alpha|beta|theta|lambda|phi)", token):
        return 1 + mp.sqrt(sum(map(ord, token)) + mpf(1) / 7)
    raise _UnknownError


def _number(value: Any) -> Any:
    if isinstance(value, tuple):
        raise _UnknownError
    return value
