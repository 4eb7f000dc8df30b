"""The one vocabulary in which every verifier answers."""

from __future__ import annotations

import enum


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
