"""Ask the configured verifier, and keep its failures apart from wrong answers."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from prefix_rft_rllib.envs.verifiers import load_verifier, shared_math_verifier
from prefix_rft_rllib.envs.verifiers.verdict import Verdict

if TYPE_CHECKING:
    from prefix_rft_rllib.envs.problems import Problem

logger = logging.getLogger(__name__)

Outcome = Verdict | float


def boxed(answer: str) -> str:
    r"""Return the shortest response that states an answer: it alone, in `\boxed{}`."""
    return f"\\boxed{{{answer}}}"


def is_accepted(outcome: Outcome) -> bool:
    """Return whether an outcome counts as solved: CORRECT, or a number above 0."""
    if isinstance(outcome, Verdict):
        return outcome is Verdict.CORRECT
    return outcome > 0


def outcome_name(outcome: Outcome) -> str:
    """Return the verdict's name, or "SCORED" for a number."""
    return outcome.name if isinstance(outcome, Verdict) else "SCORED"


class Grader:
    """A verifier by name or import path, with its results checked.

    Args:
        verifier: "math", or the import path of a `verify(response, problem)`.
        verifier_config: Its settings.

    Raises:
        ValueError: If there is no such verifier.
    """

    def __init__(self, verifier: str, verifier_config: Mapping[str, Any]):
        self._name = verifier
        self._verify = load_verifier(verifier, verifier_config)
        # Nothing is known about threads in a user's function: one call at a time.
        is_math = verifier == "math"
        self._num_threads = shared_math_verifier(**verifier_config).num_workers if is_math else 1
        self._failures_seen: set[str] = set()

    def grade(self, response: str, problem: Problem) -> Outcome:
        """Grade one response.

        Args:
            response: The whole response text, prefix included.
            problem: Its problem.

        Returns:
            A verdict or a finite number. An exception inside the verifier is `Verdict.ERROR`,
            logged once per kind, and never WRONG.

        Raises:
            ValueError: If the verifier returns anything else.
        """
        try:
            outcome = self._verify(response, problem)
        except Exception as error:
            kind = type(error).__name__
            if kind not in self._failures_seen:
                self._failures_seen.add(kind)
                logger.exception(
                    "The verifier %r raised %s for problem %r; its verdict is ERROR. Further "
                    "failures of this kind are counted, not logged.",
                    self._name,
                    kind,
                    problem.problem_id,
                )
            return Verdict.ERROR
        return self._checked(outcome)

    def grade_many(
        self, responses: Sequence[str], problems: Sequence[Problem], description: str | None = None
    ) -> list[Outcome]:
        """Grade many responses.

        Args:
            responses: The response texts.
            problems: The problem of each.
            description: Text before the progress bar; None for no bar.

        Returns:
            One outcome for each response, in order.
        """
        from tqdm import tqdm

        with ThreadPoolExecutor(self._num_threads) as executor:
            outcomes = executor.map(self.grade, responses, problems)
            bar = tqdm(
                outcomes, total=len(responses), desc=description, disable=description is None
            )
            return list(bar)

    def answers_gradeable(
        self, problems: Sequence[Problem], description: str | None = None
    ) -> list[bool]:
        """Tell for each problem whether its gold answer, alone in a box, is accepted."""
        responses = [boxed(problem.answer) for problem in problems]
        return [is_accepted(o) for o in self.grade_many(responses, problems, description)]

    def _checked(self, outcome: Any) -> Outcome:
        if isinstance(outcome, Verdict):
            return outcome
        try:
            number = math.nan if isinstance(outcome, bool | str) else float(outcome)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(
                f"The verifier {self._name!r} returned {outcome!r} ({type(outcome).__name__}). "
                "It must return a Verdict or a finite number."
            )
        return number
