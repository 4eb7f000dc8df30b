"""Reads `math_field_cases.txt`: answers as people write them, each with what it is worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).with_suffix(".txt")
_SIGNS = {"=": (True, False), "!": (False, False), "=p": (True, True), "!p": (False, True)}


@dataclass(frozen=True)
class FieldCase:
    """A gold answer, an answer, and whether it earns.

    Attributes:
        kind: The heading it stands under.
        gold: The gold answer.
        answer: A bare answer, or a whole response where it holds a box or tags.
        earns: Whether the verdict must be CORRECT.
        is_policy: Whether that is a decision, which the docs state, and not mathematics.
    """

    kind: str
    gold: str
    answer: str
    earns: bool
    is_policy: bool

    @property
    def response(self) -> str:
        """The answer as a whole response."""
        if "\\boxed" in self.answer or "<answer>" in self.answer:
            return self.answer
        return f"So the answer is $\\boxed{{{self.answer}}}$."


def field_cases() -> list[FieldCase]:
    """Return all cases of the file in order."""
    cases, kind = [], ""
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            kind = line.removeprefix("## ")
        elif line and not line.startswith("# "):
            sign, _, rest = line.replace("⏎", "\n").partition(" ")
            gold, answer = (side.strip() for side in rest.split(" ;; "))
            cases.append(FieldCase(kind, gold, answer, *_SIGNS[sign]))
    return cases


def odd_formulas() -> list[str]:
    """Return the formulas of `math_odd_formulas.txt`."""
    lines = _FILE.with_name("math_odd_formulas.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("# ")]
