"""Texts that a tokenizer changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefix_rft_rllib.envs.grading import boxed
from prefix_rft_rllib.envs.problem import Problem
from prefix_rft_rllib.envs.prompt_renderer import PromptRenderers
from prefix_rft_rllib.envs.prompting import decode_all, encode_plain, lost_piece
from prefix_rft_rllib.envs.verifiers.code_tests import is_task


@dataclass(frozen=True)
class KeptText:
    """A text of a problem, and what comes back for it.

    Attributes:
        problem: The position of its problem.
        place: "file:line".
        field_name: "prompt", "demonstration" or "answer".
        text: As it was encoded.
        decoded: What decode(encode(text)) is.
    """

    problem: int
    place: str
    field_name: str
    text: str
    decoded: str

    @property
    def is_changed(self) -> bool:
        """Whether the tokenizer changes the text."""
        return self.text != self.decoded

    @property
    def lost(self) -> str | None:
        """The first lost piece and its place, if there is one."""
        return lost_piece(self.text, self.decoded)


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
        places.append((number, problem.source, "prompt", renderers.text(problem)))
        rows.append(problem.prompt_ids[len(renderers.of(problem).leading_ids) :])
        for source, text, token_ids in zip(
            problem.demonstration_sources,
            problem.demonstration_texts,
            problem.demonstrations,
            strict=True,
        ):
            places.append((number, source, "demonstration", text))
            rows.append(token_ids if text.endswith(tokenizer.eos_token) else token_ids[:-1])
        if not is_task(problem.answer):
            answers.append((number, problem.source, "answer", boxed(problem.answer)))
    rows += encode_plain(tokenizer, [text for *_, text in answers])
    decoded = decode_all(tokenizer, rows, skip_special_tokens=False)
    return [
        KeptText(*place, back) for place, back in zip([*places, *answers], decoded, strict=True)
    ]
