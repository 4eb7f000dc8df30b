"""Which attempts gave the same answer, so that a majority can be counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefix_rft_rllib.envs.problems import Problem
from prefix_rft_rllib.envs.settings import EnvSettings
from prefix_rft_rllib.envs.verifiers import MathVerifier, Verdict
from prefix_rft_rllib.envs.verifiers.choice_verifier import CHOICE
from prefix_rft_rllib.envs.verifiers.math_answers import boxed_answer
from prefix_rft_rllib.evaluation.completions import Completion

Vote = str | None
_READ = (Verdict.CORRECT.name, Verdict.WRONG.name)
"""Verdicts of attempts whose answer was read."""


class Votes:
    """What attempts vote for.

    A vote of mathematics is the content of the box; boxes that the math verifier calls equal are
    one vote, written as the first of them. A vote of multiple choice is the letter. An attempt
    whose answer was not read has no vote.

    Args:
        settings: Of the environment: its verifier says what an answer is.
    """

    def __init__(self, settings: EnvSettings) -> None:
        self._verifier = settings.verifier
        self._configs = settings.verifier_config
        self._math: MathVerifier | None = None

    def have(self, problems: Sequence[Problem]) -> bool:
        """Whether answers to these problems can be counted.

        Not those of code, of a verifier of the user's own, or of answers without a box.
        """
        return all(self._kind(problem) is not None for problem in problems)

    def of(self, problem: Problem, attempts: Sequence[Completion]) -> list[Vote]:
        """Votes of all attempts at a problem, equal answers as equal texts.

        Args:
            problem: The problem; `have` is True of it.
            attempts: In any order.

        Returns:
            A text, or None without a vote, for each attempt.
        """
        if self._kind(problem) == CHOICE:
            return [attempt.details.get(CHOICE) for attempt in attempts]
        texts = [boxed_answer(a.response) if a.verdict in _READ else None for a in attempts]
        return representatives(texts, self._equal)

    def _kind(self, problem: Problem) -> str | None:
        kind = problem.domain if self._verifier == "domain" else self._verifier
        if kind == "math":
            return kind if self._config("math").get("extract", "boxed") == "boxed" else None
        return kind if kind == CHOICE else None

    def _config(self, kind: str) -> Mapping[str, Any]:
        return self._configs.get(kind, {}) if self._verifier == "domain" else self._configs

    def _equal(self, known: str, text: str) -> bool:
        if self._math is None:
            self._math = MathVerifier.shared(**self._config("math"))
        return self._math.compare(known, text) is Verdict.CORRECT


def representatives(texts: Sequence[Vote], equal: Callable[[str, str], bool]) -> list[Vote]:
    """Write equal texts as the first of them.

    Args:
        texts: Answers; None for none.
        equal: Whether two different texts mean the same.

    Returns:
        For each text the first one that it is equal to, itself maybe; None for None.
    """
    first: dict[str, str] = {}
    for text in texts:
        if text is None or text in first:
            continue
        known = dict.fromkeys(first.values())
        first[text] = next((other for other in known if equal(other, text)), text)
    return [None if text is None else first[text] for text in texts]
