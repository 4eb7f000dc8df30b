r"""The choice verifier: which option a response chooses, and whether it is the right one.

Everything is plain text work in time linear in the length of the response, so it runs in the
caller's process and thread. What counts as a choice is written down with examples in
`docs/choice_verifier.md`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Literal

from prefix_rft_rllib.basics.old_names import renamed
from prefix_rft_rllib.basics.ranges import one_of
from prefix_rft_rllib.envs.verifiers.choice_options import read_options
from prefix_rft_rllib.envs.verifiers.choice_reading import ChoiceReader
from prefix_rft_rllib.envs.verifiers.shared_verifier import SharedVerifier
from prefix_rft_rllib.envs.verifiers.verdict import Verdict

CHOICE = "choice"
"""Name of the verifier, and of the detail that says which letter it read."""

_EXTRACTIONS = ("stated", "boxed")
_ISOLATED_LETTER = re.compile(
    r"(?:[^\w\s\\]|_)*(?<![0-9A-Za-z])[A-Za-z](?![0-9A-Za-z])(?:[^\w\s\\]|_)*"
)


@dataclass(frozen=True)
class ChoiceResult:
    """What the verifier found out about one response.

    Attributes:
        verdict: The verdict.
        letter: The option that the response chooses; "" if it chooses none or several.
    """

    verdict: Verdict
    letter: str = ""

    @property
    def details(self) -> dict[str, str]:
        """What a `Graded` says of it."""
        return {CHOICE: self.letter} if self.letter else {}


class ChoiceVerifier(SharedVerifier):
    r"""Grades answers to multiple-choice problems.

    Args:
        letters: Letters that options may have, where the prompt does not list them: distinct
            capital letters, at least two. Default: A to J.
        extract: Where the answer stands. "stated": where the response states one last, in a
            `\boxed{}` or in words. "boxed": in the last `\boxed{}` only.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self, *, letters: str = "ABCDEFGHIJ", extract: Literal["stated", "boxed"] = "stated"
    ) -> None:
        is_text = isinstance(letters, str) and re.fullmatch("[A-Z]{2,26}", letters)
        if not is_text or len(set(letters)) < len(letters):
            raise ValueError(
                f"`letters` must be two or more distinct capital letters, such as 'ABCD', got "
                f"{letters!r}."
            )
        one_of(_EXTRACTIONS).check("extract", extract)
        self.letters = letters
        self.extract = extract

    def verify(self, response: str, answer: str, prompt: str = "") -> ChoiceResult:
        """Grade one response.

        Args:
            response: The whole response, decoded.
            answer: The gold answer: a letter, maybe with its option text, or the text alone of an
                option that the prompt lists.
            prompt: The problem. Options that it lists, labelled from A on, bound the letters, and
                their texts count for the letters in a box.

        Returns:
            The verdict and the letter. `UNPARSEABLE` if the response chooses no option or several.
            `ERROR` if it chooses one and the gold answer names none, which is no fault of the
            response.

        Raises:
            ValueError: If an argument is not a string.
        """
        for name, text in (("response", response), ("answer", answer), ("prompt", prompt)):
            if not isinstance(text, str):
                raise ValueError(f"`{name}` must be a string, got {type(text).__name__}.")
        reader = self._reader(prompt)
        gold = reader.read_gold(answer)
        choice = reader.read(response) if self.extract == "stated" else reader.read_box(response)
        if choice is not None and gold.letter and choice.words and choice.words == gold.words:
            choice = gold
        if choice is None or not choice.letter:
            return ChoiceResult(Verdict.UNPARSEABLE)
        if not gold.letter:
            return ChoiceResult(Verdict.ERROR, choice.letter)
        verdict = Verdict.CORRECT if choice.letter == gold.letter else Verdict.WRONG
        return ChoiceResult(verdict, choice.letter)

    def _reader(self, prompt: str) -> ChoiceReader:
        options = read_options(prompt)
        return ChoiceReader("".join(options) or self.letters, options)


def letter_spans(text: str) -> list[tuple[int, int]]:
    """Find every letter that stands alone, with the signs around it.

    Args:
        text: Any text.

    Returns:
        Pairs (position of the first sign, position after the last), in order. Whatever the verifier
        reads as a choice in words ends with one of them.
    """
    return [match.span() for match in _ISOLATED_LETTER.finditer(text)]


__getattr__ = partial(renamed, __name__)
