"""The file of all completions: one line each, behind one line about what they are answers to.

A killed evaluation leaves complete lines and at most one half-written one at the end. Opening the
file drops that one; what is in the others is not asked again.
"""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prefix_rft_rllib.basics.text import short_repr
from prefix_rft_rllib.evaluation.questions import Question

logger = logging.getLogger(__name__)

FORMAT = 1
"""Number of the file's form; other numbers are refused."""
_NOT_COMPARED = ("model",)
"""What the first line says for people: a model may have moved."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One answered question.

    Attributes:
        problem_id: The problem.
        seed: Inference seed; None for the greedy attempt.
        member: Number of the attempt.
        problem_hash: Of the problem's text and gold answer.
        response: The text, without end token and special tokens.
        num_tokens: Tokens of the response, end token included.
        is_truncated: Whether it ended at the budget, without an end token.
        verdict: Name of the verifier's verdict, or "SCORED".
        reward: The environment's reward.
        is_correct: Whether it counts as solved.
        details: What the verifier says beside the verdict.
    """

    problem_id: str
    seed: int | None
    member: int
    problem_hash: str
    response: str
    num_tokens: int
    is_truncated: bool
    verdict: str
    reward: float
    is_correct: bool
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> Question:
        """What it answers."""
        return Question(self.problem_id, self.seed, self.member)


@dataclass(frozen=True)
class ReadCompletions:
    """What a file holds.

    Attributes:
        fingerprint: Its first line: model, data and settings; empty if it has no complete line.
        by_question: The completions.
        num_bytes: Length of its complete lines.
        num_dropped_bytes: Length of a half-written line at its end.
    """

    fingerprint: Mapping[str, Any]
    by_question: dict[Question, Completion]
    num_bytes: int
    num_dropped_bytes: int


def read_completions(path: Path) -> ReadCompletions:
    """Read a file of completions.

    Args:
        path: An existing file.

    Returns:
        What its complete lines hold.

    Raises:
        ValueError: If a complete line is none of such a file; line and reason are named.
    """
    data = path.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    fingerprint: Mapping[str, Any] = {}
    found: dict[Question, Completion] = {}
    for number, line in enumerate(complete.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            if number == 1:
                fingerprint = _fingerprint_of(row)
                continue
            completion = Completion(**row)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path}:{number}: no line of a file of completions ({error}). Delete the file, or "
                "write to another directory."
            ) from error
        if completion.question in found:
            raise ValueError(
                f"{path}:{number}: answers {completion.question} a second time. Two evaluations "
                "have written to the file: delete one of the lines."
            )
        found[completion.question] = completion
    return ReadCompletions(fingerprint, found, len(complete), len(data) - len(complete))


def _fingerprint_of(row: Any) -> dict[str, Any]:
    if row["format"] != FORMAT:
        raise ValueError(f"its `format` is {row['format']!r}, known is {FORMAT}")
    return dict(row["fingerprint"])


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Say what of two fingerprints differs.

    Args:
        theirs: Of a file.
        ours: Of this evaluation.

    Returns:
        A text for each entry that differs.
    """
    return [
        f"`{name}` is {short_repr(theirs.get(name))} there and {short_repr(ours.get(name))} now"
        for name in dict.fromkeys([*theirs, *ours])
        if name not in _NOT_COMPARED and theirs.get(name) != ours.get(name)
    ]


class CompletionsFile:
    """A file of completions that an evaluation goes on with; a context manager.

    Args:
        path: The file; begun if it is missing.
        fingerprint: What the completions are answers to, as plain JSON data.

    Attributes:
        by_question: All completions in the file.

    Raises:
        ValueError: If it holds completions of another model, of other data or settings (it is said
            which), or another evaluation is writing to it.
    """

    def __init__(self, path: Path, fingerprint: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("ab")
        try:
            self._lock()
            read = read_completions(path)
            self.by_question = read.by_question
            if read.fingerprint:
                self._check(read.fingerprint, fingerprint)
            if read.num_dropped_bytes:
                logger.warning(
                    "%s: its last line was not written to the end and is dropped; what it answered "
                    "is asked again.",
                    path,
                )
                self._file.truncate(read.num_bytes)
            if not read.fingerprint:
                self._write([{"format": FORMAT, "fingerprint": dict(fingerprint)}])
        except BaseException:
            self._file.close()
            raise

    def append(self, completions: Sequence[Completion]) -> None:
        """Write completions; when this returns, they outlive a killed process."""
        self._write([asdict(completion) for completion in completions])
        self.by_question.update({c.question: c for c in completions})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{self._path}: another evaluation is writing to it. Wait for its end, or write to "
                "another directory."
            ) from error

    def _check(self, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        if found := differences(theirs, ours):
            raise ValueError(
                f"{self._path} holds completions of another evaluation: {'; '.join(found)}. Set "
                "them as they were to go on with it, or write to another directory."
            )

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        self._file.flush()
