"""What a plan asks about demonstrations, found out once."""

from __future__ import annotations

import logging
from functools import partial

from prefix_rft_rllib.envs.demonstrations.answer_cut import answer_cut
from prefix_rft_rllib.envs.demonstrations.demonstration_rewards import demonstration_reward
from prefix_rft_rllib.envs.demonstrations.solution_steps import step_ends
from prefix_rft_rllib.envs.problems.problem_set import ProblemSet

logger = logging.getLogger(__name__)

Key = tuple[str, int]


class DemonstrationFacts:
    """The facts about the demonstrations of a problem set, kept once they are known.

    A demonstration is graded once. What follows from a verifier that ran out of time or failed is
    kept like everything else, so that a plan does not change when it is made again; the first such
    demonstration is logged.

    Attributes:
        undecided_cuts: Problem ids and indices of demonstrations that are cut before a place of
            which the verifier could not say whether it gives the answer.
        undecided_rewards: Those whose reward is that of a verdict `TIMEOUT` or `ERROR`.

    Args:
        problem_set: The problems, their tokenizer, verifier and settings.
    """

    def __init__(self, problem_set: ProblemSet):
        self.undecided_cuts: set[Key] = set()
        self.undecided_rewards: set[Key] = set()
        self._problem_set = problem_set
        self._answer_cuts: dict[Key, int | None] = {}
        self._step_ends: dict[Key, tuple[int, ...]] = {}
        self._rewards: dict[Key, float] = {}

    def answer_cut(self, problem_id: str, demonstration_index: int) -> int | None:
        """Return the most tokens that a prefix of a demonstration may have.

        Args:
            problem_id: A problem of the set.
            demonstration_index: Which of its demonstrations.

        Returns:
            As of `answer_cut`. None, no cut, also where the setting `cut_prefix_before_answer` is
            off.

        Raises:
            ValueError: If there is no such problem or demonstration.
        """
        if not self._problem_set.settings.cut_prefix_before_answer:
            return None
        key = (problem_id, demonstration_index)
        if key not in self._answer_cuts:
            warn = partial(self._warn_once, self.undecided_cuts, key)
            self._answer_cuts[key] = answer_cut(self._problem_set, *key, warn=warn)
        return self._answer_cuts[key]

    def step_ends(self, problem_id: str, demonstration_index: int) -> tuple[int, ...]:
        """Return the numbers of leading tokens at which the steps of a demonstration end.

        Args:
            problem_id: A problem of the set.
            demonstration_index: Which of its demonstrations.

        Returns:
            As of `step_ends`.

        Raises:
            ValueError: If there is no such problem or demonstration.
        """
        key = (problem_id, demonstration_index)
        if key not in self._step_ends:
            self._step_ends[key] = step_ends(self._problem_set, *key)
        return self._step_ends[key]

    def reward(self, problem_id: str, demonstration_index: int) -> float:
        """Return what the environment would pay for a demonstration as the whole response.

        Args:
            problem_id: A problem of the set.
            demonstration_index: Which of its demonstrations.

        Returns:
            As of `demonstration_reward`.

        Raises:
            ValueError: If there is no such problem or demonstration, or the verifier returns
                something that is neither a verdict nor a finite number.
        """
        key = (problem_id, demonstration_index)
        if key not in self._rewards:
            warn = partial(self._warn_once, self.undecided_rewards, key)
            self._rewards[key] = demonstration_reward(self._problem_set, *key, warn=warn)
        return self._rewards[key]

    def _warn_once(self, undecided: set[Key], key: Key, message: str) -> None:
        if not undecided:
            logger.warning(
                "%s Further such demonstrations are treated in the same way and not logged.",
                message,
            )
        undecided.add(key)
