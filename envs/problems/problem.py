"""One problem, and the proof that it can be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefix_rft_rllib.envs.prompts.prompting import decode_response
from prefix_rft_rllib.envs.rows.plain_values import Extra
from prefix_rft_rllib.envs.verifiers.code_tests import is_task
from prefix_rft_rllib.envs.verifiers.grading import Outcome, boxed, is_accepted, outcome_name
from prefix_rft_rllib.envs.verifiers.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem, ready to be attempted.

    Attributes:
        problem_id: Unique in its `ProblemSet`.
        domain: "math", or what the data says.
        prompt: The bare problem text; of a conversation its last user message.
        prompt_ids: The rendered prompt as token ids.
        answer: The gold answer, as its source writes it; of a code problem its tests
            (`verifiers.code_tests.pack_task`).
        demonstrations: Token ids of each demonstration, end token included. May be empty.
        split: "train" or the name of a held-out set.
        source: "file:line" of its first row.
        num_long_demonstrations: Demonstrations set aside for having more tokens than
            `max_response_tokens`.
        demonstration_texts: The texts of `demonstrations`.
        demonstration_sources: "file:line" of each of them.
        extra: The columns of its first row that are no field: plain data by column, read-only.
        messages: The prompt as the row's own conversation; empty if the row has a text.
        source_number: Which of `EnvSettings.sources` it is from.
    """

    problem_id: str
    domain: str
    prompt: str
    prompt_ids: Sequence[int]
    answer: str
    demonstrations: tuple[Sequence[int], ...]
    split: str
    source: str
    num_long_demonstrations: int = 0
    demonstration_texts: tuple[str, ...] = ()
    demonstration_sources: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=Extra)
    messages: tuple[Mapping[str, Any], ...] = ()
    source_number: int = 0

    def check(
        self,
        tokenizer: Any,
        verify: Callable[[str, Problem], Outcome],
        max_prompt_tokens: int,
        max_response_tokens: int,
    ) -> list[str]:
        """Prove that the problem can be used: every item that fails says why.

        Args:
            tokenizer: The tokenizer of its token ids.
            verify: The verifier, for example `Grader(...).grade`.
            max_prompt_tokens: Budget of the prompt.
            max_response_tokens: Budget of the response, end token included.

        Returns:
            One sentence per failed item. Empty: the gold answer and every demonstration are
            accepted, and all token counts fit.
        """
        failures = []
        if len(self.prompt_ids) > max_prompt_tokens:
            failures.append(
                f"{self.source}: the prompt has {len(self.prompt_ids)} tokens, more than "
                f"max_prompt_tokens ({max_prompt_tokens})."
            )
        outcome = Verdict.CORRECT if is_task(self.answer) else verify(boxed(self.answer), self)
        if not is_accepted(outcome):
            failures.append(
                f"{self.source}: the gold answer {self.answer!r} is not accepted as "
                f"{boxed(self.answer)!r}: {outcome_name(outcome)}."
            )
        for index, token_ids in enumerate(self.demonstrations):
            if len(token_ids) > max_response_tokens:
                failures.append(
                    f"{self.source}: demonstration {index} has {len(token_ids)} tokens, more than "
                    f"max_response_tokens ({max_response_tokens})."
                )
            outcome = verify(decode_response(tokenizer, token_ids), self)
            if not is_accepted(outcome):
                failures.append(
                    f"{self.source}: demonstration {index} is not accepted for the answer "
                    f"{self.answer!r}: {outcome_name(outcome)}."
                )
        return failures
