"""Problems with the tokenizer of their token ids and their verifier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from prefix_rft_rllib.envs.problems.packed_problems import PackedProblems, SelectedProblems
from prefix_rft_rllib.envs.problems.problem import TRAIN, Problem
from prefix_rft_rllib.envs.prompts.end_tokens import EndTokens
from prefix_rft_rllib.envs.prompts.prompt_renderer import PromptRenderers
from prefix_rft_rllib.envs.prompts.prompting import decode_response, smallest_vocab_size
from prefix_rft_rllib.envs.settings import EnvSettings
from prefix_rft_rllib.envs.verifiers.grading import Grader, reward_of
from prefix_rft_rllib.envs.verifiers.verdict import Graded


class ProblemSet:
    """Problems in file order, the tokenizer of their token ids, and how they were selected.

    Attributes:
        problems: All problems, training problems first.
        tokenizer: The transformers tokenizer.
        settings: The checked `env_config`.
        counts: Rows, merged rows, drops by filter, demonstrations, demonstrations set aside or left
            out, problems by split.
        end_tokens: What ends a response; by default the tokenizer's end token alone.
    """

    def __init__(
        self,
        problems: Iterable[Problem],
        tokenizer: Any,
        settings: EnvSettings,
        counts: Mapping[str, int],
        end_tokens: EndTokens | None = None,
    ):
        self.problems = (
            problems if isinstance(problems, PackedProblems) else PackedProblems(problems)
        )
        self.tokenizer = tokenizer
        self.settings = settings
        self.counts = dict(counts)
        eos_token_id = int(tokenizer.eos_token_id)
        self.end_tokens = end_tokens or EndTokens((eos_token_id,), eos_token_id)
        self._splits = np.array(self.problems.texts("split"))
        ids = self.problems.texts("problem_id")
        self._number_of = {problem_id: number for number, problem_id in enumerate(ids)}
        assert len(self._number_of) == len(ids), "the loader makes problem ids unique"

    def __reduce__(self) -> tuple[Any, ...]:
        """What is pickled: the arrays, the tokenizer and the settings; what is computed is not."""
        state = (self.problems, self.tokenizer, self.settings, self.counts, self.end_tokens)
        return type(self), state

    @cached_property
    def train(self) -> SelectedProblems:
        """The training problems."""
        return self.problems.where(self._splits == TRAIN)

    @cached_property
    def train_with_demonstration(self) -> SelectedProblems:
        """The training problems that have a demonstration."""
        has_one = self.problems.num_demonstrations() > 0
        return self.problems.where((self._splits == TRAIN) & has_one)

    @cached_property
    def held_out(self) -> dict[str, SelectedProblems]:
        """The held-out problems by set name, in the order of `held_out_data`."""
        names = dict.fromkeys(name for name in self._splits.tolist() if name != TRAIN)
        return {name: self.problems.where(self._splits == name) for name in names}

    @cached_property
    def grader(self) -> Grader:
        """The verifier of the settings."""
        return Grader(self.settings.verifier, self.settings.verifier_config)

    @cached_property
    def smallest_vocab_size(self) -> int:
        """The number of ids that covers every token of the tokenizer."""
        return smallest_vocab_size(self.tokenizer)

    @cached_property
    def renderers(self) -> PromptRenderers:
        """How prompts are written, by data source."""
        return PromptRenderers(self.tokenizer, self.settings)

    def by_id(self, problem_id: str) -> Problem:
        """Return one problem of any split.

        Raises:
            ValueError: If there is none with this id.
        """
        number = self._number_of.get(problem_id)
        if number is None:
            examples = ", ".join(repr(p.problem_id) for p in self.problems[:3])
            raise ValueError(
                f"There is no problem with the id {problem_id!r} among the {len(self.problems)} "
                f"loaded ones; ids look like {examples}."
            )
        return self.problems[number]

    def demonstration(self, problem_id: str, demonstration_index: int) -> Sequence[int]:
        """Return the token ids of one demonstration, end token included.

        Raises:
            ValueError: If there is no such problem or demonstration.
        """
        problem = self.by_id(problem_id)
        if not 0 <= demonstration_index < len(problem.demonstration_ids):
            raise ValueError(
                f"demonstration_index ({demonstration_index}) is out of range: problem "
                f"{problem_id!r} has {len(problem.demonstration_ids)} demonstrations."
            )
        return problem.demonstration_ids[demonstration_index]

    def response_text(self, response_ids: Sequence[int]) -> str:
        """Decode a response as the verifier sees it: without the end token and special tokens."""
        return decode_response(self.tokenizer, self.end_tokens.without(response_ids))

    def grade_response(self, problem: Problem, response_ids: Sequence[int]) -> tuple[Graded, float]:
        """Grade a whole response, prefix and end token included.

        Args:
            problem: What it responds to.
            response_ids: Its token ids; see `response_text`.

        Returns:
            The verifier's outcome with its details, and the reward that the settings pay for it.
        """
        response = self.response_text(response_ids)
        graded = self.grader.grade_with_details(response, problem)
        return graded, reward_of(graded.outcome, self.settings.rewards)
