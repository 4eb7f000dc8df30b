"""The one vocabulary in which every verifier answers."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping


class Verdict(enum.StrEnum):
    """What a verifier found out about one response.

    Only `CORRECT` and `WRONG` are statements about the mathematics. The other three
    keep what used to be the same 0.0 apart: a response without an answer, a check that
    took too long, and a check that broke.
    """

    CORRECT = "CORRECT"
    """The response's answer equals the gold answer."""

    WRONG = "WRONG"
    """The response gives a readable answer, and it differs from the gold answer."""

    UNPARSEABLE = "UNPARSEABLE"
    """The response gives no answer, or none that can be read."""

    TIMEOUT = "TIMEOUT"
    """The comparison was stopped at the time limit."""

    ERROR = "ERROR"
    """The verifier failed (worker lost, memory limit), or the gold answer is unreadable."""


SCORED = "SCORED"
"""Stands for the verdict where a verifier returned a number."""

ISOLATION = "isolation"
"""Name of the detail that says in which isolation the attempt's code ran."""

NO_ISOLATION = "none"
"""Its value where there was none."""

Detail = str | int | float | bool


@dataclasses.dataclass(frozen=True)
class Graded:
    """What a verifier found out about one response, and why: for verifiers that can say more.

    Attributes:
        outcome: A verdict, or a finite number that is itself the reward.
        details: Plain data by name, for people: shown in the sample log, never trained on. Keep
            texts short: they travel with every rollout.
    """

    outcome: Verdict | float
    details: Mapping[str, Detail] = dataclasses.field(default_factory=dict)
