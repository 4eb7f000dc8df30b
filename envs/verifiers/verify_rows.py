"""The rows of the `verify` command: read, checked, completed from a file of problems."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from prefix_rft_rllib.basics.text import short_repr
from prefix_rft_rllib.envs.sandbox.jobs import check_tests

MATH_KINDS = ("response", "answer_pair")
CODE_KIND = "code"
CHOICE_KIND = "choice"
SKIPPED_KINDS = ("format",)
_KINDS = (*MATH_KINDS, CODE_KIND, CHOICE_KIND, *SKIPPED_KINDS)
_EXPECTED = {True: True, False: False, "pass": True, "fail": False, None: None}
_FROM_PROBLEM = ("tests", "entry_point", "prompt")

Problems = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One checked line of the input file.

    Attributes:
        line: Line number, from 1.
        fields: Everything the line holds.
        kind: One of `MATH_KINDS`, `CODE_KIND`, `CHOICE_KIND` or one of `SKIPPED_KINDS`.
        problem: The fields of its problem: `tests` and `entry_point` for code, `prompt`.
    """

    line: int
    fields: dict[str, Any]
    kind: str
    problem: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_graded(self) -> bool:
        """True if one of the verifiers applies to the row."""
        return self.kind not in SKIPPED_KINDS

    @property
    def expected(self) -> bool | None:
        """Whether the verdict should be CORRECT, None if the row does not say."""
        return _EXPECTED[self.fields.get("expected")]


def open_text(path: Path, mode: str) -> IO[str]:
    """Open a text file, compressed if its name ends in .gz.

    Lines end at a line feed only: some texts contain other line separators (U+2028).
    """
    if path.suffix == ".gz":
        return cast(IO[str], gzip.open(path, mode + "t", encoding="utf-8", newline="\n"))
    return open(path, mode, encoding="utf-8", newline="\n")


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a JSONL file, compressed or not; empty lines are skipped.

    Args:
        path: The file.

    Yields:
        Line numbers, from 1, and objects.

    Raises:
        ValueError: If a line is no JSON object; names file and line.
    """
    with open_text(path, "r") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                fields = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{place}: not a JSON object: {error}") from error
            if not isinstance(fields, dict):
                raise ValueError(f"{place}: must be a JSON object, got {type(fields).__name__}")
            yield number, fields


def read_problems(path: Path) -> dict[str, dict[str, Any]]:
    """Read problems by their `id` and, where they have one, their `problem_id`.

    Args:
        path: A JSONL file of problems.

    Returns:
        The problems' fields.

    Raises:
        ValueError: If a line is no JSON object.
    """
    problems: dict[str, dict[str, Any]] = {}
    for _, fields in read_objects(path):
        for name in ("id", "problem_id"):
            if isinstance(fields.get(name), str):
                problems.setdefault(fields[name], fields)
    return problems


def read_rows(path: Path, problems: Problems | None = None) -> Iterator[Row]:
    """Read and check the rows of a file.

    Args:
        path: A JSONL file.
        problems: By id, for rows with a `problem_id` and no `gold` or `tests` of their own.

    Yields:
        The rows in order.

    Raises:
        ValueError: If a row is malformed; names file, line and field.
    """
    for number, fields in read_objects(path):
        yield _checked_row(fields, number, f"{path}, line {number}", problems or {})


def _checked_row(fields: dict[str, Any], number: int, place: str, problems: Problems) -> Row:
    problem = problems.get(str(fields.get("problem_id")), {})
    if "gold" not in fields and isinstance(problem.get("answer"), str):
        fields = {**fields, "gold": problem["answer"]}
    task = {name: fields.get(name, problem.get(name)) for name in _FROM_PROBLEM}
    is_code = task["tests"] is not None and "gold" not in fields
    is_choice = fields.get("domain", problem.get("domain")) == CHOICE_KIND
    default = CODE_KIND if is_code else CHOICE_KIND if is_choice else "response"
    kind = fields.get("kind", default)
    if kind not in _KINDS:
        raise ValueError(
            f"{place}, field `kind`: got {kind!r}; must be one of {list(_KINDS)} or left out "
            "(= 'code' for a row with tests, 'choice' for the domain 'choice', else 'response')"
        )
    needed: dict[str, tuple[str, ...]] = dict.fromkeys(
        (*MATH_KINDS, CHOICE_KIND), ("response", "gold")
    )
    needed[CODE_KIND] = ("response",)
    for name in needed.get(kind, ()):
        if not isinstance(fields.get(name), str):
            got = short_repr(fields[name]) if name in fields else "no such field"
            hint = _hint(fields, problems) if name == "gold" else ""
            raise ValueError(f"{place}, field `{name}`: must be a text, got {got}{hint}")
    expected = fields.get("expected")
    if not isinstance(expected, bool | str | None) or expected not in _EXPECTED:
        raise ValueError(
            f"{place}, field `expected`: must be true, false, 'pass', 'fail' or left out, "
            f"got {expected!r:.80}"
        )
    if kind == CODE_KIND:
        try:
            check_tests(task["tests"], task["entry_point"])
        except ValueError as error:
            raise ValueError(f"{place}: {error}{_hint(fields, problems)}") from error
    if not isinstance(task["prompt"], str | None) and kind in (CODE_KIND, CHOICE_KIND):
        raise ValueError(f"{place}, field `prompt`: must be a text, got {task['prompt']!r:.80}")
    return Row(number, fields, kind, {**task, "prompt": task["prompt"] or ""})


def _hint(fields: Mapping[str, Any], problems: Problems) -> str:
    """Say what is missing for a row that names its problem only."""
    name = fields.get("problem_id")
    if name is None:
        return ""
    if not problems:
        return f" (for a row with only a `problem_id`, {name!r}, give --problems)"
    return f" (--problems holds no problem {name!r})" if name not in problems else ""
