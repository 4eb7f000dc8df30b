"""Settings that are declared once, as fields of a dataclass: checks and pages are made from it.

A dataclass whose fields are settings:

    @dataclass(kw_only=True)
    class Settings:
        group_size: int = setting(8, whole(1), "Rollouts per problem.", change="...")
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from prefix_rft_rllib.basics.ranges import Range

NEEDED = object()
"""Stands for the default of a setting that has none."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """All that is known about a setting.

    Attributes:
        name: Its name.
        default: Its default, or `NEEDED`.
        allowed: The values that it may have.
        meaning: What it is: a sentence or two.
        paper: Its value in the paper's runs, and where that is said; empty if it is not from there.
        change: When to use another value than the default; may be empty.
    """

    name: str
    default: Any
    allowed: Range
    meaning: str
    paper: str
    change: str

    @property
    def description(self) -> str:
        """Meaning and range in sentences, as the docstring of a setter has them."""
        return f"{self.meaning} {self.allowed.allowed[0].upper()}{self.allowed.allowed[1:]}."


def setting(
    default: Any, allowed: Range, meaning: str, *, change: str = "", paper: str = ""
) -> Any:
    """Declare a setting as the field of a dataclass.

    Args:
        default: Its default, copied for every object; `NEEDED` if there is none.
        allowed: The values that it may have.
        meaning: What it is: a sentence or two.
        change: When to use another value than the default.
        paper: Its value in the paper's runs, and where that is said.

    Returns:
        A field of `dataclasses`; typed so that the annotation beside it decides.
    """
    known = {"allowed": allowed, "meaning": meaning, "paper": paper, "change": change}
    if default is NEEDED:
        return field(metadata=known)
    if isinstance(default, Mapping):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=known)
    return field(default=default, metadata=known)


def declarations(owner: type) -> tuple[Declaration, ...]:
    """The settings that a dataclass declares, in their order.

    Args:
        owner: A dataclass whose fields were all made by `setting`.

    Returns:
        One entry a setting; a default that can be changed is a new one at every call.
    """
    return tuple(_declarations(owner))


def _declarations(owner: type) -> Iterator[Declaration]:
    for item in fields(owner):
        default = NEEDED if item.default is MISSING else item.default
        if item.default_factory is not MISSING:
            default = item.default_factory()
        yield Declaration(name=item.name, default=default, **item.metadata)
