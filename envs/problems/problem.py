"""One problem, ready to be attempted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefix_rft_rllib.envs.rows.plain_values import Extra

TRAIN = "train"
"""The split of training problems."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A prompt, its gold answer and its demonstrations.

    Attributes:
        problem_id: Unique in its `ProblemSet`.
        domain: "math", or what the data says.
        prompt: The bare problem text; of a conversation its last user message.
        prompt_ids: The rendered prompt as token ids.
        answer: The gold answer, as its source writes it; of a code problem its tests
            (`verifiers.code_tests.pack_task`).
        demonstration_ids: Token ids of each demonstration, end token included. May be empty.
        split: "train" or the name of a held-out set.
        source: "file:line" of its first row.
        num_long_demonstrations: Demonstrations set aside for having more tokens than
            `max_response_tokens`.
        demonstration_texts: Their texts.
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
    demonstration_ids: tuple[Sequence[int], ...]
    split: str
    source: str
    num_long_demonstrations: int = 0
    demonstration_texts: tuple[str, ...] = ()
    demonstration_sources: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=Extra)
    messages: tuple[Mapping[str, Any], ...] = ()
    source_number: int = 0
