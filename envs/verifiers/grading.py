"""Ask the configured verifier, and keep its failures apart from wrong answers."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from prefix_rft_rllib.envs.problems.problem import Problem
from prefix_rft_rllib.envs.verifiers import load_verifier, max_threads
from prefix_rft_rllib.envs.verifiers.code_tests import is_task
from prefix_rft_rllib.envs.verifiers.math_answers import has_content
from prefix_rft_rllib.envs.verifiers.math_golds import is_readable
from prefix_rft_rllib.envs.verifiers.verdict import SCORED, Detail, Graded, Verdict

logger = logging.getLogger(__name__)

Outcome = Verdict | float
Result = TypeVar("Result")


def boxed(answer: str) -> str:
    r"""Return the shortest response that states an answer: it alone, in `\boxed{}`."""
    return f"\\boxed{{{answer}}}"


def is_accepted(outcome: Outcome) -> bool:
    """Return whether an outcome counts as solved: CORRECT, or a number above 0."""
    if isinstance(outcome, Verdict):
        return outcome is Verdict.CORRECT
    return outcome > 0


def is_undecided(outcome: Outcome) -> bool:
    """Return whether the verifier ran out of time or failed: nothing is known of the text."""
    return isinstance(outcome, Verdict) and outcome in (Verdict.TIMEOUT, Verdict.ERROR)


def refuses_answer(outcome: Outcome, problem: Problem, verifier: str) -> bool:
    """Return whether the outcome of a gold answer, alone in a box, shows that it is ungradeable.

    Time-outs and failures show nothing and may differ between processes, with one exception: an
    answer without any content is an `ERROR` by definition, and so is one that the math verifier
    does not understand as a whole.

    Args:
        outcome: The outcome.
        problem: Its problem.
        verifier: The verifier's name or import path.
    """
    if outcome is Verdict.ERROR:
        is_read_here = verifier in ("math", "domain") and problem.domain == "math"
        answer = problem.answer
        return not (is_readable(answer) if is_read_here else has_content(answer))
    return not (is_undecided(outcome) or is_accepted(outcome))


def outcome_name(outcome: Outcome) -> str:
    """Return the verdict's name, or "SCORED" for a number."""
    return outcome.name if isinstance(outcome, Verdict) else SCORED


def reward_of(outcome: Outcome, rewards: Mapping[str, float]) -> float:
    """Return the reward of an outcome: a number is its own, a verdict's is 0.0 if not listed."""
    return rewards.get(outcome.name, 0.0) if isinstance(outcome, Verdict) else outcome


def map_in_threads(
    num_threads: int, function: Callable[..., Result], *arguments: Iterable[Any]
) -> Iterator[Result]:
    """Like `map`, with several calls at a time; "one thread" is the calling thread itself.

    All arguments are taken at once. With several threads the first calls go on meanwhile; in one
    thread they begin when the last argument is there.

    Args:
        num_threads: Calls at a time, at least 1.
        function: What is called.
        *arguments: As of `map`.

    Yields:
        The results, in order.
    """
    if num_threads == 1:
        yield from itertools.starmap(function, list(zip(*arguments, strict=True)))
        return
    with ThreadPoolExecutor(num_threads) as executor:
        yield from executor.map(function, *arguments)


class Grader:
    """A verifier by name or import path, with its results checked.

    Attributes:
        max_threads: Threads that may call `grade` at a time. 1 for a user's function, of which
            nothing is known: it is called one at a time and, where the caller has a choice, in a
            process's main thread (`signal.alarm`, as in math-verify's own time limit, works only
            there).
        failures: First message of each kind of exception that the verifier raised.

    Args:
        verifier: "math", "code", "choice", "domain", or the import path of a
            `verify(response, problem)`.
        verifier_config: Its settings.

    Raises:
        ValueError: If there is no such verifier.
    """

    def __init__(self, verifier: str, verifier_config: Mapping[str, Any]):
        self._name = verifier
        self._verify = load_verifier(verifier, verifier_config)
        self.max_threads = max_threads(verifier, verifier_config)
        self.failures: dict[str, str] = {}

    def grade(self, response: str, problem: Problem) -> Outcome:
        """Grade one response: the outcome of `grade_with_details`."""
        return self.grade_with_details(response, problem).outcome

    def grade_with_details(self, response: str, problem: Problem) -> Graded:
        """Grade one response.

        Args:
            response: The whole response text, prefix included.
            problem: Its problem.

        Returns:
            A verdict or a finite number, and the verifier's details, if it gave any; lone
            surrogates in them, which UTF-8 cannot hold, are written as escapes. An exception inside
            the verifier is `Verdict.ERROR`, logged once per kind, and never WRONG.

        Raises:
            ValueError: If the verifier returns anything else.
        """
        try:
            result = self._verify(response, problem)
        except Exception as error:
            kind = type(error).__name__
            if kind not in self.failures:
                self.failures[kind] = str(error)
                logger.exception(
                    "The verifier %r raised %s for problem %r; its verdict is ERROR. Further "
                    "failures of this kind are counted, not logged.",
                    self._name,
                    kind,
                    problem.problem_id,
                )
            return Graded(Verdict.ERROR)
        return self._checked(result)

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

        outcomes = map_in_threads(self.max_threads, self.grade, responses, problems)
        bar = tqdm(outcomes, total=len(responses), desc=description, disable=description is None)
        return list(bar)

    def grade_answers(
        self, problems: Sequence[Problem], description: str | None = None
    ) -> list[Outcome]:
        """Grade each problem's gold answer as a response of its own, alone in a box.

        Tests were checked when they were read and are `CORRECT`: nothing can be graded alone.
        """
        compared = [p for p in problems if not is_task(p.answer)]
        outcomes = iter(self.grade_many([boxed(p.answer) for p in compared], compared, description))
        return [Verdict.CORRECT if is_task(p.answer) else next(outcomes) for p in problems]

    def _checked(self, result: Any) -> Graded:
        """Bring what the verifier returned into one form."""
        graded = result if isinstance(result, Graded) else Graded(result)
        return Graded(self._checked_outcome(graded.outcome), self._checked_details(graded.details))

    def _checked_outcome(self, outcome: Any) -> Outcome:
        if isinstance(outcome, Verdict):
            return outcome
        try:
            number = math.nan if isinstance(outcome, bool | str) else float(outcome)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(
                f"The verifier {self._name!r} returned {outcome!r} ({type(outcome).__name__}). "
                "It must return a Verdict or a finite number, alone or as the outcome of a Graded."
            )
        return number

    def _checked_details(self, details: Any) -> dict[str, Detail]:
        is_plain = isinstance(details, Mapping) and all(
            isinstance(name, str) and isinstance(value, Detail) for name, value in details.items()
        )
        if not is_plain:
            raise ValueError(
                f"The verifier {self._name!r} returned a Graded with the details {details!r:.200}. "
                "They must be a dict from names to texts, numbers, True or False."
            )
        return {
            _encodable(name): _encodable(value) if isinstance(value, str) else value
            for name, value in details.items()
        }


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
