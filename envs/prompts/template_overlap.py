"""Demonstrations that begin with what the prompt has already opened, such as `<think>`."""

from __future__ import annotations

import re

_TAG = r"<[^<>\s]{1,64}>"
_LAST_TAGS = re.compile(rf"(?:{_TAG}\s*)+\Z")
_NUM_SEARCHED = 512


def overlap_length(prompt: str, demonstration: str) -> int:
    """Return how many characters of a demonstration repeat the tags that end a prompt.

    Args:
        prompt: As the model reads it, the assistant's turn opened.
        demonstration: The text that would follow.

    Returns:
        The length of the repeated tags, and of the blanks behind them that the prompt has too; 0 if
        nothing is repeated.
    """
    found = _LAST_TAGS.search(prompt[-_NUM_SEARCHED:])
    if found is None:
        return 0
    end = found[0]
    tags = re.findall(_TAG, end)
    for first in range(len(tags)):
        repeated = re.match(r"\s*" + r"\s*".join(map(re.escape, tags[first:])), demonstration)
        if repeated:
            blanks = end[len(end.rstrip()) :]
            rest = demonstration[repeated.end() :]
            num_blanks = next(
                (i for i, (a, b) in enumerate(zip(blanks, rest, strict=False)) if a != b),
                min(len(blanks), len(rest)),
            )
            return repeated.end() + num_blanks
    return 0
