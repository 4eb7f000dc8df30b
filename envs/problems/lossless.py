"""Texts that a tokenizer changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefix_rft_rllib.envs.problems.problem import Problem
from prefix_rft_rllib.envs.prompts.assistant_turns import without_edges
from prefix_rft_rllib.envs.prompts.prompt_renderer import PromptRenderers
from prefix_rft_rllib.envs.prompts.prompting import decode_all, encode_plain, lost_piece
from prefix_rft_rllib.envs.verifiers.code_tests import is_task
from prefix_rft_rllib.envs.verifiers.grading import boxed


@dataclass(frozen=True)
class KeptText:
    """A text of a problem, and what comes back for it.

    Attributes:
        problem: The position of its problem.
        place: "file:line".
        field_name: "prompt", "demonstration" or "answer".
        text: As it was encoded.
        lost: The first lost piece and its place; None if decode(encode(text)) is the text, but for
            blanks at both ends and beside special tokens, which tokenizers add or drop.
    """

    problem: int
    place: str
    field_name: str
    text: str
    lost: str | None

    @property
    def is_changed(self) -> bool:
        """Whether the tokenizer changes the text."""
        return self.lost is not None


def decoded_texts(
    problems: Sequence[Problem], renderers: PromptRenderers, tokenizer: Any
) -> list[KeptText]:
    """Decode what was encoded: every prompt, demonstration and boxed answer.

    Args:
        problems: With their token ids.
        renderers: How their prompts are written.
        tokenizer: Of their token ids.

    Returns:
        Prompts and demonstrations by problem, then the answers.
    """
    places: list[tuple[int, str, str, str]] = []
    rows: list[Sequence[int]] = []
    answers: list[tuple[int, str, str, str]] = []
    for number, problem in enumerate(problems):
        prompt = renderers.text(problem)
        places.append((number, problem.source, "prompt", prompt))
        rows.append(problem.prompt_ids[renderers.of(problem).num_leading(prompt) :])
        for source, text, token_ids in zip(
            problem.demonstration_sources,
            problem.demonstration_texts,
            problem.demonstration_ids,
            strict=True,
        ):
            places.append((number, source, "demonstration", text))
            end_text = tokenizer.convert_ids_to_tokens(int(token_ids[-1]))
            rows.append(token_ids if text.endswith(end_text) else token_ids[:-1])
        if not is_task(problem.answer):
            answers.append((number, problem.source, "answer", boxed(problem.answer)))
    rows += encode_plain(tokenizer, [text for *_, text in answers])
    decoded = decode_all(tokenizer, rows, skip_special_tokens=False)
    edgeless = without_edges(tokenizer)
    return [
        KeptText(*place, lost_piece(*(map(edgeless, (place[-1], back)))))
        if place[-1] != back
        else KeptText(*place, None)
        for place, back in zip([*places, *answers], decoded, strict=True)
    ]
