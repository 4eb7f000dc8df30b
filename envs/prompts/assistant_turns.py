"""How a chat template writes an assistant's turn, and token ids of demonstrations within it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import numpy as np

from prefix_rft_rllib.envs.prompts.end_tokens import EndTokens, end_tokens
from prefix_rft_rllib.envs.prompts.prompt_renderer import PromptRenderer, PromptRenderers
from prefix_rft_rllib.envs.prompts.prompting import encode_plain
from prefix_rft_rllib.envs.prompts.token_ids import TokenIds
from prefix_rft_rllib.envs.rows.row_fields import RawProblem

_NUM_ENCODED_AT_A_TIME = 256
_TEXT = "zq7zq"  # stands for an assistant's text; no template writes it by itself


@dataclass(frozen=True)
class AssistantTurn:
    """What a chat template writes around an assistant's text.

    Attributes:
        before: Blanks between the prompt and the text. "" where the template writes anything else
            there (an empty block of thoughts): the policy does not read that.
        behind: Everything behind the text; "" without a chat template.
    """

    before: str = ""
    behind: str = ""

    @classmethod
    def of(cls, renderer: PromptRenderer) -> AssistantTurn:
        """Find out by rendering a conversation with and without an answer."""
        if not renderer.uses_chat_template:
            return cls()
        question = {"role": "user", "content": "1"}
        try:
            prompt = renderer.conversation([question])
            answered = [question, {"role": "assistant", "content": _TEXT}]
            whole = renderer.conversation(answered, add_generation_prompt=False)
        except ValueError:  # a template of prompts alone
            return cls()
        before, found, behind = whole.rpartition(_TEXT)
        if not found:
            return cls()
        between = before.removeprefix(prompt)
        return cls(between if before.startswith(prompt) and not between.strip() else "", behind)

    def closing(self, end_text: str) -> str:
        """The end token, with the blanks that the template writes before it."""
        blanks = self.behind[: len(self.behind) - len(self.behind.lstrip())]
        return blanks + end_text if self.behind.startswith(blanks + end_text) else end_text


class DemonstrationEncoder:
    """Encodes demonstrations as they follow their prompts.

    Prompt and demonstration are one text to the tokenizer, as in a rendered conversation: where it
    begins a text with a blank of its own, there is none in the middle. The prompt keeps the ids
    that it has alone, since the policy reads those. If a token would reach from one into the other,
    the demonstration is encoded alone.

    Args:
        tokenizer: A transformers tokenizer.
        turn: How the chat template writes an answer.
        ends: The end tokens: a demonstration that does not end with one is closed.
    """

    def __init__(self, tokenizer: Any, turn: AssistantTurn, ends: EndTokens):
        self._tokenizer, self._before = tokenizer, turn.before
        self._ends = ends
        # Of ordinary tokens the text is not known; `EndTokens.ended` adds those as ids.
        added = {i: str(t) for i, t in tokenizer.added_tokens_decoder.items() if i in ends.ids}
        self._end_texts = tuple(added.values())
        self._closing = turn.closing(added[ends.of_turn]) if ends.of_turn in added else ""

    def encode(self, rows: Iterable[tuple[str, Sequence[int], str, str]]) -> Iterator[TokenIds]:
        """Encode many demonstrations, a part of them at a time.

        Args:
            rows: For each the rendered prompt, the ids of that text alone, the demonstration, and
                "file:line" for errors. The blanks before an answer that the template writes are
                part of no prompt.

        Yields:
            The token ids of each demonstration; the last is its only end token.

        Raises:
            ValueError: If a demonstration holds an end token inside.
        """
        remaining = iter(rows)
        while part := list(islice(remaining, _NUM_ENCODED_AT_A_TIME)):
            closed = [
                text if text.endswith(self._end_texts) else text + self._closing
                for _, _, text, _ in part
            ]
            texts = [p + self._before + t for (p, *_), t in zip(part, closed, strict=True)]
            together = encode_plain(self._tokenizer, texts)
            for (_, prompt_ids, _, source), ids, text in zip(part, together, closed, strict=True):
                num_prompt = len(prompt_ids)
                follows = ids[:num_prompt] == list(prompt_ids)
                own = ids[num_prompt:] if follows else encode_plain(self._tokenizer, [text])[0]
                yield self._ends.ended(np.array(own, np.int32), source)


class DemonstrationEncoders:
    """One encoder for each way in which prompts are written.

    Attributes:
        tokenizer: A transformers tokenizer.
        end_tokens: What ends a response; the end of a turn is that of the first source.

    Args:
        tokenizer: The tokenizer.
        renderers: How prompts are written.
        declared: End tokens that the model's files name.
        vocab_size: Ids are below it.

    Raises:
        ValueError: If an end token is outside the vocabulary.
    """

    def __init__(
        self,
        tokenizer: Any,
        renderers: PromptRenderers,
        declared: Sequence[int],
        vocab_size: int,
    ):
        self.tokenizer = tokenizer
        self._renderers = renderers
        ends: list[EndTokens] = []
        self._encoders: dict[tuple[PromptRenderer, bool], DemonstrationEncoder] = {}
        for renderer in renderers.each:
            turn = AssistantTurn.of(renderer)
            ends.append(end_tokens(tokenizer, turn.behind, declared, vocab_size))
            begun = AssistantTurn("", turn.behind)
            for is_begun, written in ((False, turn), (True, begun)):
                encoder = DemonstrationEncoder(tokenizer, written, ends[-1])
                self._encoders[renderer, is_begun] = encoder
        self.end_tokens = ends[0]

    def encode(
        self, problems: Iterable[RawProblem], prompts: Iterable[str], ids: Iterable[Sequence[int]]
    ) -> Iterator[TokenIds]:
        """Encode the demonstrations of problems, in order; see `DemonstrationEncoder.encode`.

        Args:
            problems: The problems.
            prompts: Their rendered prompts.
            ids: The token ids of these.
        """
        together = zip(problems, prompts, ids, strict=True)
        for key, group in groupby(together, key=lambda entry: self._key(entry[0])):
            num_leading = key[0].num_leading
            yield from self._encoders[key].encode(
                (text, prompt_ids[num_leading(text) :], demonstration, source)
                for problem, text, prompt_ids in group
                for demonstration, source in zip(
                    problem.demonstration_texts, problem.demonstration_sources, strict=True
                )
            )

    def _key(self, problem: RawProblem) -> tuple[PromptRenderer, bool]:
        """A problem's renderer, and whether its prompt ends within an assistant's text."""
        messages = problem.messages
        return self._renderers.of(problem), bool(messages) and messages[-1]["role"] == "assistant"


def without_edges(tokenizer: Any) -> Callable[[str], str]:
    """Make a function that leaves out blanks beside special tokens and at both ends of a text.

    Some tokenizers put a blank behind every special token and at the beginning, others drop blanks
    there. Texts that differ by such blanks alone are the same text to the model.

    Args:
        tokenizer: A transformers tokenizer; its added tokens are the special ones.
    """
    # The unknown token stands for lost text.
    contents = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    contents -= {"", str(tokenizer.unk_token)}
    longest_first = sorted(map(re.escape, contents), key=len, reverse=True)
    if not longest_first:
        return str.strip
    beside = re.compile(rf"\s*({'|'.join(longest_first)})\s*")
    return lambda text: beside.sub(r"\1", text).strip()
