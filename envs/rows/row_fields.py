"""One row of data as a problem: every field found, checked and named if it is wrong."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prefix_rft_rllib.basics.text import short_repr
from prefix_rft_rllib.envs.rows.messages import (
    answer_text,
    check_prompt,
    decoded,
    is_conversation,
    question_of,
    split_conversation,
)
from prefix_rft_rllib.envs.rows.plain_values import Extra, is_missing
from prefix_rft_rllib.envs.rows.row_forms import PLAIN
from prefix_rft_rllib.envs.rows.row_values import Conversation, RowFields
from prefix_rft_rllib.envs.settings import EnvSettings
from prefix_rft_rllib.envs.verifiers.code_tests import pack_task


@dataclass
class RawProblem:
    """A problem as text.

    Attributes:
        problem_id: The row's `problem_id`, else its `id`, else a hash of prompt and answer.
        domain: What the row says, else "code" for a row with tests, else "math".
        prompt: The bare problem; of a conversation its last user message.
        answer: The gold answer; of a row with tests these (`code_tests.pack_task`).
        source: "file:line" of the first row.
        demonstration_texts: Its demonstrations; equal texts once.
        demonstration_sources: "file:line" of each of them.
        messages: The prompt as the row's own conversation; empty if the row has a text.
        extra: The other columns of the first row.
        source_number: Which of the sources it is from.
    """

    problem_id: str
    domain: str
    prompt: str
    answer: str
    source: str
    demonstration_texts: list[str] = field(default_factory=list)
    demonstration_sources: list[str] = field(default_factory=list)
    messages: tuple[dict[str, Any], ...] = ()
    extra: Extra = field(default_factory=Extra)
    source_number: int = 0

    def add_demonstrations(self, other: RawProblem) -> None:
        """Take over those of another row of the same problem that are new."""
        known = set(self.demonstration_texts)
        for text, source in zip(
            other.demonstration_texts, other.demonstration_sources, strict=True
        ):
            if text not in known:
                self.demonstration_texts.append(text)
                self.demonstration_sources.append(source)


class RowReader:
    """Reads the rows of one source.

    Attributes:
        forms: How many rows were read in which form, by a sentence that says where the fields
            stood.

    Args:
        settings: Of this source.
        counts: Dropped rows, columns and demonstrations are added to it.
    """

    def __init__(self, settings: EnvSettings, counts: Counter[str]):
        self.forms: Counter[str] = Counter()
        self._settings = settings
        self._counts = counts

    def read(self, values: Mapping[str, Any], place: str) -> RawProblem | None:
        """Read one row; None if its missing answer is to be filtered.

        Args:
            values: By column.
            place: "file:line".

        Raises:
            ValueError: If the row is bad; place and field are named.
        """
        row = RowFields.of(values, place, self._settings.fields)
        prompt, messages, demonstration = _prompt(row)
        task = _task(row)
        answer = task or row.text("answer")
        if answer is None:
            if "no_parseable_answer" in self._settings.filters:
                self._counts["dropped_no_parseable_answer"] += 1
                return None
            raise ValueError(
                f"{place}: {row.missing('answer')} Without an answer no response can be graded; "
                "filters=['no_parseable_answer'] drops and counts such rows."
            )
        texts = list(dict.fromkeys(_demonstrations(row, self._counts)))
        if not texts and demonstration is not None:
            texts = [demonstration]
        problem_id = row.text("problem_id") or row.text("id")
        if problem_id is None:
            text = json.dumps(messages, sort_keys=True, default=repr) if messages else prompt
            problem_id = hashlib.sha256(f"{text}\0{answer}".encode()).hexdigest()[:16]
        domain = row.text("domain") or ("code" if task else "math")
        self._counts.update({f"column_left_out:{name}": 1 for name in row.unusable})
        self._note_form(row)
        return RawProblem(
            problem_id=problem_id,
            domain=domain,
            prompt=prompt,
            answer=answer,
            source=place,
            demonstration_texts=texts,
            demonstration_sources=[place] * len(texts),
            messages=tuple(messages),
            extra=Extra(row.others(self._settings.extra_fields)),
        )

    def _note_form(self, row: RowFields) -> None:
        parts = [f"{name} from {column!r}" for name, column in row.used.items()]
        if row.form.name != PLAIN.name:
            self._counts[f"rows_in_form:{row.form.name}"] += 1
        self.forms[f"in the form {row.form.name!r}: {', '.join(parts)}"] += 1


def _prompt(row: RowFields) -> tuple[str, Conversation, str | None]:
    """Return the bare problem, its conversation, and what a whole conversation ends with."""
    name, value = row.find("prompt")
    messages = row.conversation(name, value) if isinstance(value, str | list) else None
    is_whole = value is not None and row.find("demonstration")[1] is not None
    whole_name, whole_value = ("messages", None) if is_whole else row.find("messages")
    whole = row.conversation(whole_name, whole_value) if whole_value is not None else None
    if whole is None and whole_value is not None:
        raise row.error(whole_name, f"must be a list of messages, got {short_repr(whole_value)}.")
    start, answer = split_conversation(whole) if whole else ([], [])
    demonstration = _message_text(row, whole_name, answer) if answer else None
    if messages is None and value is None and whole is not None:
        name, messages = whole_name, start
    elif demonstration is not None:
        _check_same_question(row, whole_name, start, messages)
    if messages is None:
        text = row.text("prompt")
        if text is None:
            raise ValueError(f"{row.place}: {row.missing('prompt')}")
        return text, [], demonstration
    try:
        check_prompt(messages)
    except ValueError as error:
        raise row.error(name, str(error)) from error
    return question_of(messages), messages, demonstration


def _check_same_question(
    row: RowFields, name: str, asked: Conversation, messages: Conversation | None
) -> None:
    """Check that a whole conversation beside a prompt answers this prompt."""
    prompt = question_of(messages) if messages else row.text("prompt")
    questions = [message["content"] for message in asked if message["role"] == "user"]
    if prompt is None or not questions or questions[-1].strip() != prompt.strip():
        raise row.error(
            name,
            f"is a conversation about {short_repr(questions[-1:])}, but the prompt beside it is "
            f"{short_repr(prompt)}: its answer is no demonstration of that. Remove one of the two.",
        )


def _message_text(row: RowFields, name: str, messages: Conversation) -> str | None:
    """The text of a demonstration given as a message; None if it is blank."""
    try:
        text = answer_text(messages)
    except ValueError as error:
        raise row.error(name, str(error)) from error
    return text if text.strip() else None


def _demonstrations(row: RowFields, counts: Counter[str]) -> list[str]:
    """Read demonstrations; blank ones, and those that the row says are wrong, are counted."""
    name, value = row.find("demonstration")
    value = decoded(value) if _holds_a_list(value) else value
    if value is None:
        return []
    if is_conversation(value):
        entries: list[Any] = [value]
    else:
        entries = value if isinstance(value, list) else [value]
    right = _verdicts(row, name, len(entries))
    texts = []
    for entry, is_right in zip(entries, right, strict=True):
        text = _demonstration(row, name, entry)
        if text is None:
            counts["demonstrations_blank"] += 1
        elif not is_right:
            counts["demonstrations_marked_wrong"] += 1
        else:
            texts.append(row.checked_text(name, text))
    return texts


def _holds_a_list(value: Any) -> bool:
    """Whether a text is a list of texts or messages, as tables without nested columns have it."""
    found = decoded(value)
    return isinstance(found, list) and all(
        entry is None
        or isinstance(entry, str)
        or is_conversation(entry if isinstance(entry, list) else [entry])
        for entry in found
    )


def _demonstration(row: RowFields, name: str, entry: Any) -> str | None:
    """One demonstration as text; None if there is nothing in it."""
    if is_missing(entry) or entry == []:
        return None
    if isinstance(entry, str) and not entry.lstrip().startswith("[{"):
        return entry if entry.strip() else None
    messages = row.conversation(name, entry if isinstance(entry, str | list) else [entry])
    if messages is not None:
        return _message_text(row, name, messages)
    if isinstance(entry, str):
        return entry
    raise row.error(
        name,
        "must be null, text, an assistant message, or a list of these, got "
        f"{short_repr(row.find('demonstration')[1])}.",
    )


def _verdicts(row: RowFields, name: str, num_entries: int) -> list[bool]:
    """Whether the row's own verdicts call each demonstration right; all are without verdicts."""
    columns = [(n, decoded(row.values.get(n))) for n in row.form.verdicts]
    given = [(n, column) for n, column in columns if column is not None]
    for column_name, column in given:
        is_list = isinstance(column, list) and all(v is None or isinstance(v, bool) for v in column)
        if not is_list or len(column) != num_entries:
            raise row.error(
                column_name,
                f"must be a list of {num_entries} times true or false, one for each entry of "
                f"{name!r}, got {short_repr(column)}.",
            )
    if not given:
        return [True] * num_entries
    return [any(verdicts) for verdicts in zip(*(column for _, column in given), strict=True)]


def _task(row: RowFields) -> str | None:
    """Return the tests of a row as a gold answer; None if it has none."""
    name, tests = row.find("tests")
    if tests is None:
        return None
    try:
        return pack_task(decoded(tests), row.text("entry_point"))
    except ValueError as error:
        raise ValueError(f"{row.place}: field {name!r}: {error}") from error
