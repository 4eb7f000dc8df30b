"""The reward of a whole demonstration, as if the policy had written it."""

from __future__ import annotations

import logging

from prefix_rft_rllib.envs.problems import ProblemSet
from prefix_rft_rllib.envs.verifiers.grading import is_undecided, outcome_name

logger = logging.getLogger(__name__)


def demonstration_reward(
    problem_set: ProblemSet, problem_id: str, demonstration_index: int
) -> float:
    """Return the reward that the environment pays for a demonstration as the whole response.

    If the verifier runs out of time or fails, it is the reward of that verdict, as in the
    environment. The result is kept in the problem set, also in that case: one demonstration is
    graded once, and its reward does not change within a process.

    Args:
        problem_set: The problems, their verifier and `rewards`.
        problem_id: A problem of the set.
        demonstration_index: Which of its demonstrations.

    Returns:
        The reward of the verdict (`rewards`), or the number that the verifier returned.

    Raises:
        ValueError: If there is no such problem or demonstration, or the verifier returns something
            that is neither a verdict nor a finite number.
    """
    key = (problem_id, demonstration_index)
    if key not in problem_set.demonstration_rewards:
        token_ids = problem_set.demonstration(problem_id, demonstration_index)
        problem = problem_set.by_id(problem_id)
        graded, reward = problem_set.grade_response(problem, token_ids)
        if is_undecided(graded.outcome):
            _note_undecided(problem_set, key, outcome_name(graded.outcome), reward)
        problem_set.demonstration_rewards[key] = reward
    return problem_set.demonstration_rewards[key]


def _note_undecided(
    problem_set: ProblemSet, key: tuple[str, int], verdict: str, reward: float
) -> None:
    if not problem_set.undecided_rewards:
        logger.warning(
            "The verdict of demonstration %d of problem %r is %s. Its reward is %g, as the "
            "environment pays for that verdict. Further demonstrations without a verdict are "
            "treated in the same way and not logged.",
            key[1],
            key[0],
            verdict,
            reward,
        )
    problem_set.undecided_rewards.add(key)
