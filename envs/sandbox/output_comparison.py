"""Whether a program printed what a test expects: token by token, numbers as numbers."""

from __future__ import annotations

import re
from decimal import Context, Decimal, localcontext

DEFAULT_TOLERANCE = 1e-6

# Leading zeros, a plus in front, `1_000`, `0x10`, `nan` and `inf` make a text: what looks like a
# number there may be a row of bits, a code, a name.
_NUMBER = re.compile(
    r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII
)
_INTEGER = re.compile(r"-?[0-9]+", re.ASCII)
_MAX_LENGTH = 1000
"""Longer tokens are compared as texts, so that no token costs more than its length."""
_CONTEXT = Context(prec=50)


def same_output(printed: str, expected: str, tolerance: float) -> bool:
    """Return whether two outputs have the same tokens.

    Blanks, ends of lines and a byte order mark in front do not count. Two tokens agree if they
    are equal texts, or numbers that agree:

    * Where one is written as an integer and both values are integers: exactly.
    * Where the expected one is written as an integer: within `tolerance`.
    * Else: within `tolerance`, or `tolerance` times the expected value.

    Args:
        printed: By the program; may be hostile. Takes time linear in its length.
        expected: By the test.
        tolerance: At least 0.
    """
    tokens, wanted = (text.removeprefix("\ufeff").split() for text in (printed, expected))
    if len(tokens) != len(wanted):
        return False
    with localcontext(_CONTEXT):
        bound = Decimal(repr(tolerance))
        return all(
            token == other or _same_number(token, other, bound)
            for token, other in zip(tokens, wanted, strict=True)
        )


def _same_number(token: str, wanted: str, tolerance: Decimal) -> bool:
    if max(len(token), len(wanted)) > _MAX_LENGTH:
        return False
    if _NUMBER.fullmatch(token) is None or _NUMBER.fullmatch(wanted) is None:
        return False
    value, goal = Decimal(token), Decimal(wanted)
    if value == goal:
        return True
    is_integer = _INTEGER.fullmatch(wanted) is not None
    if (is_integer or _INTEGER.fullmatch(token)) and _is_whole(value) and _is_whole(goal):
        return False
    return abs(value - goal) <= (
        tolerance if is_integer else tolerance * max(Decimal(1), abs(goal))
    )


def _is_whole(value: Decimal) -> bool:
    return value == value.to_integral_value()
