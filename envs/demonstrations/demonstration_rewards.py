"""The reward of a whole demonstration, as if the policy had written it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from prefix_rft_rllib.envs.problems.problem_set import ProblemSet
from prefix_rft_rllib.envs.verifiers.grading import is_undecided, outcome_name

logger = logging.getLogger(__name__)


def demonstration_reward(
    problem_set: ProblemSet,
    problem_id: str,
    demonstration_index: int,
    warn: Callable[[str], None] = logger.warning,
) -> float:
    """Return the reward that the environment pays for a demonstration as the whole response.

    If the verifier runs out of time or fails, it is the reward of that verdict, as in the
    environment.

    Args:
        problem_set: The problems, their verifier and `rewards`.
        problem_id: A problem of the set.
        demonstration_index: Which of its demonstrations.
        warn: Called with a sentence if there is no verdict.

    Returns:
        The reward of the verdict (`rewards`), or the number that the verifier returned.

    Raises:
        ValueError: If there is no such problem or demonstration, or the verifier returns something
            that is neither a verdict nor a finite number.
    """
    token_ids = problem_set.demonstration(problem_id, demonstration_index)
    graded, reward = problem_set.grade_response(problem_set.by_id(problem_id), token_ids)
    if is_undecided(graded.outcome):
        warn(
            f"The verdict of demonstration {demonstration_index} of problem {problem_id!r} is "
            f"{outcome_name(graded.outcome)}. Its reward is {reward:g}, as the environment pays "
            "for that verdict."
        )
    return reward
