"""Where the solution steps of a demonstration end, counted in tokens."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cache
from typing import Any

from prefix_rft_rllib.envs.problems.problem_set import ProblemSet
from prefix_rft_rllib.envs.prompts.prompting import decode_response

# `\;` and `\!` are spaces of LaTeX, not punctuation.
_SEPARATOR = re.compile(r"(?<!\\)[.!?;]\s+|\n\s*")
_CONTENT = re.compile(r"[^\s.!?;]")
_UNFINISHED_CHARACTER = "\ufffd"


def step_ends(
    problem_set: ProblemSet, problem_id: str, demonstration_index: int
) -> tuple[int, ...]:
    r"""Return the numbers of leading tokens at which the steps of a demonstration end.

    A step ends at a line break, or after `.`, `!`, `?` or `;` followed by whitespace; not after
    LaTeX's `\;` and `\!`. Separator and following whitespace belong to the finished step, and a
    piece of nothing but separators belongs to the step before it, so that no step is empty.

    Steps are made of whole tokens. A step gets the whitespace after it as far as tokens hold
    nothing else: a token " so" begins the next step. If one token holds the end of a step and text
    of the next, it belongs to the finished step, and a step that has no token of its own is part of
    the one before it.

    Args:
        problem_set: The problems and their tokenizer.
        problem_id: A problem of the set.
        demonstration_index: Which of its demonstrations.

    Returns:
        Increasing numbers of tokens; the last is the length of the whole demonstration, end token
        included.

    Raises:
        ValueError: If there is no such problem or demonstration.
    """
    token_ids = problem_set.demonstration(problem_id, demonstration_index)
    tokenizer = problem_set.tokenizer
    text = decode_response(tokenizer, token_ids)
    covered = covered_characters(tokenizer, token_ids)
    num_content = len(text.rstrip())
    ends: list[int] = []
    for content_end, end in text_steps(text)[:-1]:
        reached = covered[bisect_right(covered, end) - 1]  # the most that whole tokens allow
        num_tokens = bisect_left(covered, reached if reached >= content_end else content_end)
        if num_tokens > (ends[-1] if ends else 0) and covered[num_tokens] < num_content:
            ends.append(num_tokens)
    return (*ends, len(token_ids))


def text_steps(text: str) -> list[tuple[int, int]]:
    """Find the solution steps of a text.

    Args:
        text: Any text.

    Returns:
        For each step, in order, the positions after its last character that is no whitespace, and
        after the whitespace that follows. The last step ends with the text.
    """
    steps: list[tuple[int, int]] = []
    start = 0
    for end in (*(match.end() for match in _SEPARATOR.finditer(text)), len(text)):
        piece = text[start:end]
        content_end = start + len(piece.rstrip())
        if _CONTENT.search(piece):
            steps.append((content_end, end))
        elif steps:
            steps[-1] = (content_end if content_end > start else steps[-1][0], end)
        start = end
    return steps or [(len(text.rstrip()), len(text))]


def covered_characters(tokenizer: Any, token_ids: Sequence[int]) -> list[int]:
    """Return how many characters of the decoded text the first tokens complete.

    One pass. Each token is decoded after the token before it, since some decoders treat the
    beginning of a text in their own way (they strip a space), and together with the tokens that
    hold the first bytes of its character.

    Args:
        tokenizer: The tokenizer of the ids.
        token_ids: N tokens of a text.

    Returns:
        N + 1 numbers that never fall, for the first 0, 1, ..., N tokens. A character counts with
        the token that holds its last byte.
    """

    @cache
    def decoded(some_ids: tuple[int, ...]) -> str:
        return decode_response(tokenizer, some_ids)

    covered = [0]
    num_complete = 0
    context: tuple[int, ...] = ()
    group: tuple[int, ...] = ()
    for token in token_ids:
        group = (*group, token)
        text = decoded(context + group)
        num_new = len(text.rstrip(_UNFINISHED_CHARACTER)) - len(decoded(context))
        covered.append(max(covered[-1], num_complete + num_new))
        if num_new > 0 and not text.endswith(_UNFINISHED_CHARACTER):
            num_complete += num_new
            context, group = group, ()
    return covered
