"""From completions to estimates: over all problems, for each value of a field, over seeds."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from prefix_rft_rllib.basics.text import first_of, short_repr
from prefix_rft_rllib.envs.problems import Problem
from prefix_rft_rllib.envs.rows.row_forms import nested_value
from prefix_rft_rllib.evaluation.completions import Completion
from prefix_rft_rllib.evaluation.options import EvaluationOptions
from prefix_rft_rllib.evaluation.questions import Question
from prefix_rft_rllib.evaluation.statistics import (
    avg_at_k,
    maj_at_k,
    mean_with_interval,
    pass_at_k,
    spread_over_seeds,
)
from prefix_rft_rllib.evaluation.votes import Vote, Votes

MAX_VALUES = 50
"""Most values that a field of a breakdown may have."""
NO_VALUE = "(none)"
_GREEDY = "greedy_"

Values = dict[str, np.ndarray]
"""By metric one value for each problem."""


@dataclass(frozen=True)
class Answers:
    """All attempts at one problem.

    Attributes:
        problem: The problem.
        greedy: The greedy attempt, if one was asked.
        sampled: The sampled ones of each inference seed.
        votes: Their votes, in the same order; None where answers cannot be counted.
    """

    problem: Problem
    greedy: Completion | None
    sampled: tuple[tuple[Completion, ...], ...]
    votes: tuple[tuple[Vote, ...], ...] | None


def collect(
    problems: Sequence[Problem],
    by_question: Mapping[Question, Completion],
    options: EvaluationOptions,
    votes: Votes,
) -> list[Answers]:
    """Bring completions into the order of problems, seeds and members.

    Args:
        problems: The problems.
        by_question: At least one completion for each question that the options ask for.
        options: With `num_samples`.
        votes: Reads what attempts vote for.

    Returns:
        The attempts at each problem.
    """
    n = options.num_samples or 0
    can_vote = bool(n) and votes.have(problems)
    found = []
    for problem in problems:
        rows = [
            tuple(by_question[Question(problem.problem_id, seed, member)] for member in range(n))
            for seed in options.seeds
        ]
        voted = votes.of(problem, [c for row in rows for c in row]) if can_vote else None
        found.append(
            Answers(
                problem,
                by_question[Question(problem.problem_id, None, 0)] if options.greedy else None,
                tuple(rows),
                None
                if voted is None
                else tuple(tuple(voted[i * n : (i + 1) * n]) for i in range(len(rows))),
            )
        )
    return found


def score(
    answers: Sequence[Answers], options: EvaluationOptions, *, max_response_tokens: int
) -> dict[str, Any]:
    """Estimate everything that is reported.

    Args:
        answers: Of all problems, at least one.
        options: With `num_samples` and `ks`.
        max_response_tokens: Longest possible response.

    Returns:
        Plain data: `overall`, by metric `mean`, `low`, `high` (95% over problems) and
        `num_problems`; `over_seeds`, by metric `mean`, `std` and `num_seeds`, empty with one seed;
        `breakdown`, by field and value the same as `overall`; `verdicts`, numbers by name.

    Raises:
        ValueError: If a field of the breakdown is none (`by_field`).
    """
    by_id = {a.problem.problem_id: a for a in answers}
    problems = [a.problem for a in answers]

    def estimates(chosen: Sequence[Answers]) -> dict[str, Any]:
        values = metrics_of(chosen, options, range(len(options.seeds)))
        largest = {name: max_response_tokens if "length" in name else 1 for name in values}
        return {
            name: asdict(mean_with_interval(numbers, bounds=(0.0, float(largest[name]))))
            for name, numbers in values.items()
        }

    completions = [c for a in answers for c in [*sum(a.sampled, ()), *filter(None, [a.greedy])]]
    return {
        "overall": estimates(answers),
        "over_seeds": _over_seeds(answers, options),
        "breakdown": {
            name: {
                value: estimates([by_id[problem.problem_id] for problem in chosen])
                for value, chosen in by_field(problems, name).items()
            }
            for name in options.breakdown
        },
        "verdicts": dict(sorted(collections.Counter(c.verdict for c in completions).items())),
    }


def metrics_of(
    answers: Sequence[Answers], options: EvaluationOptions, seed_numbers: Sequence[int]
) -> Values:
    """Metrics of each problem.

    Args:
        answers: Of some problems.
        options: With `num_samples` and `ks`.
        seed_numbers: Which of the options' seeds count; their attempts are pooled.

    Returns:
        By metric one value a problem: `avg@n`, `pass@k`, `maj@k` (for those k above 1 that divide
        n), `response_length` in tokens, `truncated_fraction`; of the greedy attempt
        `greedy_pass@1`, `greedy_response_length` and `greedy_truncated_fraction`.
    """
    values: Values = {}
    n = options.num_samples or 0
    if n:
        rows = [[c for i in seed_numbers for c in a.sampled[i]] for a in answers]
        is_correct = [[c.is_correct for c in row] for row in rows]
        values[f"avg@{n}"] = avg_at_k(is_correct)
        num_correct = [sum(row) for row in is_correct]
        for k in options.ks:
            values[f"pass@{k}"] = pass_at_k(num_correct, n * len(seed_numbers), k)
        if (votes := _votes(answers, seed_numbers)) is not None:
            for k in (k for k in options.ks if k > 1 and n % k == 0):
                values[f"maj@{k}"] = maj_at_k(votes, is_correct, k)
        values |= _lengths(rows)
    if options.greedy:
        rows = [[a.greedy] for a in answers if a.greedy is not None]
        values[f"{_GREEDY}pass@1"] = avg_at_k([[c.is_correct for c in row] for row in rows])
        values |= {_GREEDY + name: numbers for name, numbers in _lengths(rows).items()}
    return values


def _votes(answers: Sequence[Answers], seed_numbers: Sequence[int]) -> list[list[Vote]] | None:
    voted = [a.votes for a in answers if a.votes is not None]
    if len(voted) < len(answers):
        return None
    return [[vote for i in seed_numbers for vote in row[i]] for row in voted]


def _lengths(rows: Sequence[Sequence[Completion]]) -> Values:
    return {
        "response_length": avg_at_k([[c.num_tokens for c in row] for row in rows]),
        "truncated_fraction": avg_at_k([[c.is_truncated for c in row] for row in rows]),
    }


def _over_seeds(answers: Sequence[Answers], options: EvaluationOptions) -> dict[str, Any]:
    """Mean and deviation over inference seeds (arXiv 2507.01679, Tab. 5)."""
    if len(options.seeds) < 2 or not options.num_samples:
        return {}
    each = [metrics_of(answers, options, [number]) for number in range(len(options.seeds))]
    sampled = [name for name in each[0] if not name.startswith(_GREEDY)]
    return {
        name: asdict(spread_over_seeds([float(values[name].mean()) for values in each]))
        for name in sampled
    }


def by_field(problems: Sequence[Problem], name: str) -> dict[str, list[Problem]]:
    """Sort problems by the value of a field.

    Args:
        problems: At least one.
        name: "domain", or a column or dotted path of the data.

    Returns:
        By value, sorted, the problems that have it; those without the field as "(none)".

    Raises:
        ValueError: If no problem has the field, or it has more than `MAX_VALUES` values.
    """
    groups: dict[str, list[Problem]] = collections.defaultdict(list)
    for problem in problems:
        groups[_value(problem, name)].append(problem)
    if set(groups) == {NO_VALUE}:
        columns = sorted({str(column) for problem in problems for column in problem.extra})
        raise ValueError(
            f"No problem has the field {name!r} of the breakdown. Fields of the data: domain, "
            f"{first_of(columns, 30)}; nested ones as in 'meta.level'."
        )
    if len(groups) > MAX_VALUES:
        raise ValueError(
            f"The field {name!r} of the breakdown has {len(groups)} values, such as "
            f"{short_repr(sorted(groups)[:3])}; at most {MAX_VALUES} make a table."
        )
    return {value: groups[value] for value in sorted(groups)}


def _value(problem: Problem, name: str) -> str:
    if name == "domain":
        return problem.domain
    is_there, value = nested_value(problem.extra, name)
    return NO_VALUE if not is_there or value is None else str(value)
