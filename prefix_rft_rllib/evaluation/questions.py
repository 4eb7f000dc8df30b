"""What a model is asked: problems, attempts, and which draws each attempt uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from prefix_rft_rllib.basics.random_draws import stable_hash
from prefix_rft_rllib.core.prefix_sampling import PlannedRollout

T = TypeVar("T")


class Question(NamedTuple):
    """One attempt at one problem.

    Attributes:
        problem_id: The problem.
        seed: Inference seed; None for the greedy attempt.
        member: Number of the attempt, from 0; 0 for the greedy one.
    """

    problem_id: str
    seed: int | None
    member: int


def spread_evenly(items: Sequence[T], count: int | None) -> list[T]:
    """Take items at even distances, the first one among them.

    Args:
        items: In their order.
        count: How many, at least 1; None or more than there are: all.

    Returns:
        Items in their order.
    """
    if count is None or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def plan(
    problem_ids: Sequence[str], *, num_samples: int, seeds: Sequence[int], greedy: bool
) -> list[list[Question]]:
    """Plan all questions, in parts that are asked at one temperature.

    Args:
        problem_ids: The problems.
        num_samples: Sampled attempts at each for each seed.
        seeds: Inference seeds.
        greedy: Whether each gets a greedy attempt.

    Returns:
        The greedy attempts, then those of each seed; attempts at a problem stand together.
    """
    parts = [[Question(i, None, 0) for i in problem_ids]] if greedy else []
    parts += [
        [Question(i, seed, m) for i in problem_ids for m in range(num_samples)] for seed in seeds
    ]
    return [part for part in parts if part]


def calls(part: Sequence[Question], size: int) -> Iterator[list[Question]]:
    """Cut a part of the plan into calls, whatever is answered already.

    A run that goes on thereby batches the rest as an uninterrupted one does.

    Args:
        part: Questions of one temperature.
        size: Questions of a call, at least 1.

    Yields:
        The questions of each call.
    """
    for start in range(0, len(part), size):
        yield list(part[start : start + size])


def rollouts(questions: Sequence[Question], draws: str = "evaluate") -> list[PlannedRollout]:
    """Plan rollouts without a prefix.

    Args:
        questions: Different ones.
        draws: Part of the key of all draws; with another one they are others.

    Returns:
        One each. Its draws are a function of seed, problem and member alone; attempts at one
        problem are a group.
    """
    groups: dict[tuple[str, int | None], int] = {}
    return [
        PlannedRollout(
            problem_id=question.problem_id,
            group_id=groups.setdefault(question[:2], len(groups)),
            member=question.member,
            seed=stable_hash(draws, question.seed or 0, question.problem_id, question.member),
        )
        for question in questions
    ]
