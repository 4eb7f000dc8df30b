"""Which values a setting may have, and the one way in which the package says that one may not.

A message names the setting, what is allowed, the value, and what to try:

    `keep_fraction` must be in [0, 1], got 20. It is a share, not a percentage: use 0.2 for 20%.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real
from typing import Any


def _no_hint(value: Any) -> str:
    return ""


@dataclass(frozen=True)
class Range:
    """The values that a setting may have.

    Attributes:
        allowed: What they are, as it stands behind "must be".
        contains: Whether a value, of whatever type, is one of them.
        advice: A sentence about what the setting means or what to try; may be empty.
        hint: A sentence about what was probably meant by a value outside; may be empty.
    """

    allowed: str
    contains: Callable[[Any], bool]
    advice: str = ""
    hint: Callable[[Any], str] = _no_hint

    def advising(self, advice: str) -> Range:
        """The same range, with a sentence for who misses it."""
        return replace(self, advice=advice)

    def complaint(self, value: Any) -> str | None:
        """What to say of a value behind its name.

        Args:
            value: Of whatever type.

        Returns:
            "must be ..., got ...", with hint and advice; None if the value is allowed.
        """
        if self.contains(value):
            return None
        parts = (f"must be {self.allowed}, got {value!r}.", self.hint(value), self.advice)
        return " ".join(filter(None, parts))

    def check(self, name: str, value: Any) -> None:
        """Refuse a value outside of the range.

        Args:
            name: Name of the setting as the user wrote it.
            value: The setting's value.

        Raises:
            ValueError: If the value is not allowed.
        """
        complaint = self.complaint(value)
        if complaint is not None:
            raise ValueError(f"`{name}` {complaint}")


def whole(least: int | None = None, most: int | None = None) -> Range:
    """Whole numbers, also numpy's; True and False are none.

    Args:
        least: The smallest.
        most: The largest.

    Returns:
        Their range.
    """

    def contains(value: Any) -> bool:
        is_whole = isinstance(value, Integral) and not isinstance(value, bool)
        return is_whole and (least is None or value >= least) and (most is None or value <= most)

    allowed = "a whole number"
    if least is not None:
        allowed += f" of at least {least}" if most is None else f" in [{least}, {most}]"
    return Range(allowed, contains)


def real(
    least: float | None = None,
    most: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
    may_be_infinite: bool = False,
) -> Range:
    """Numbers, also numpy's; NaN, True and False are none.

    Args:
        least: The smallest.
        most: The largest.
        above: What they are larger than, in the place of `least`.
        below: What they are smaller than, in the place of `most`.
        may_be_infinite: Whether infinity is one of them.

    Returns:
        Their range; one between 0 and 1 tells who writes a percentage the share.
    """

    def contains(value: Any) -> bool:
        if not isinstance(value, Real) or isinstance(value, bool) or value != value:  # NaN
            return False
        size: Any = value  # the type checker knows of no order among all real numbers
        return (
            (may_be_infinite or -math.inf < size < math.inf)
            and (least is None or size >= least)
            and (most is None or size <= most)
            and (above is None or size > above)
            and (below is None or size < below)
        )

    low = f"[{least:g}" if least is not None else f"({above:g}" if above is not None else ""
    high = f"{most:g}]" if most is not None else f"{below:g})" if below is not None else ""
    if low and high:
        is_share = (low[1:], high[:-1]) == ("0", "1")
        hint = partial(_share_for, contains) if is_share else _no_hint
        return Range(f"in {low}, {high}", contains, hint=hint)
    kind = "a number" if may_be_infinite else "a finite number"
    if least is not None:
        kind += f" of at least {least:g}"
    if above is not None:
        kind += f" above {above:g}"
    return Range(kind, contains)


def _share_for(contains: Callable[[Any], bool], value: Any) -> str:
    """What a percentage is as a share of one."""
    if not real(above=1, most=100).contains(value) or not contains(value / 100):
        return ""
    return f"It is a share, not a percentage: use {value / 100:g} for {value:g}%."


SHARE = real(0, 1)
"""Shares of one; whoever writes a percentage reads the share."""

FLAG = Range("True or False", lambda value: isinstance(value, bool))
"""True or False; 0 and 1 are none."""

TEXT = Range("a text", lambda value: isinstance(value, str))
"""Texts."""

PATH = Range("a path", lambda value: isinstance(value, str | os.PathLike))
"""Texts, and paths of `pathlib`."""

DIRECTORY_OR_NAME = replace(
    PATH, allowed='a directory or a name of the Hugging Face hub, "org/name" or "org/name@revision"'
)
"""Where the files of a model or a tokenizer are."""


def mapping(of: str = "keyword arguments") -> Range:
    """Dicts, and what else maps names to values; all names are texts.

    Args:
        of: What is in them.

    Returns:
        Their range; what is inside is checked by whoever reads it.
    """

    def contains(value: Any) -> bool:
        return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)

    return Range(f"a dict of {of}", contains)


def texts(of: str) -> Range:
    """Lists, tuples and sets of texts; a single text is none.

    Args:
        of: What they are.

    Returns:
        Their range.
    """

    def contains(value: Any) -> bool:
        is_list = isinstance(value, list | tuple | set | frozenset)
        return is_list and all(isinstance(text, str) for text in value)

    return Range(f"a list of {of}", contains)


def one_of(values: Iterable[Any]) -> Range:
    """A few values; of equal ones of different types (1, 1.0 and True) only the given.

    Args:
        values: What is allowed.

    Returns:
        Their range.
    """
    known = tuple(values)

    def contains(value: Any) -> bool:
        return any(type(value) is type(other) and value == other for other in known)

    return Range(f"one of {', '.join(map(repr, known))}", contains)


def only(value: Any, meaning: str = "") -> Range:
    """One value, to be joined with others.

    Args:
        value: The value.
        meaning: What it stands for, "for no limit".

    Returns:
        Its range.
    """
    words = f"{value!r} {meaning}".rstrip()
    return Range(words, lambda other: type(other) is type(value) and other == value)


def any_of(*ranges: Range) -> Range:
    """What is in one of several ranges.

    Args:
        *ranges: At least two.

    Returns:
        The joined range, with the advice and the hint of the first.
    """
    first, *others = ranges
    *middle, last = [other.allowed for other in others]
    allowed = f"{', '.join([first.allowed, *middle])}, or {last}"
    return replace(
        first, allowed=allowed, contains=lambda value: any(r.contains(value) for r in ranges)
    )


def optional(values: Range, meaning: str = "") -> Range:
    """A range, or None.

    Args:
        values: The range.
        meaning: What None stands for, "for no limit".

    Returns:
        The joined range.
    """
    return any_of(values, only(None, meaning))
