"""Rows of data checked field by field and merged into problems, before any token exists."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefix_rft_rllib.envs.problem_rows import Row, nested_value, read_rows
from prefix_rft_rllib.envs.settings import DataSource, EnvSettings
from prefix_rft_rllib.envs.verifiers.code_tests import pack_task

_NAMES = {
    "prompt": ("question", "problem", "prompt"),
    "answer": ("answer", "solution"),
    "demonstration": ("demonstration", "demonstrations"),
    "id": ("id",),
    "problem_id": ("problem_id",),
    "domain": ("domain",),
    "tests": ("tests",),
    "entry_point": ("entry_point",),
}


@dataclass
class RawProblem:
    """A problem as text.

    Attributes:
        problem_id: The row's `problem_id`, else its `id`, else a hash of prompt and answer.
        domain: What the row says, else "code" for a row with tests, else "math".
        prompt: The bare problem.
        answer: The gold answer; of a row with tests these (`code_tests.pack_task`).
        source: "file:line" of the first row.
        demonstrations: Pairs of "file:line" and text; equal texts once.
    """

    problem_id: str
    domain: str
    prompt: str
    answer: str
    source: str
    demonstrations: list[tuple[str, str]] = field(default_factory=list)


def read_problems(
    sources: Sequence[DataSource], settings: EnvSettings, counts: Counter[str]
) -> list[RawProblem]:
    """Read sources and merge rows of the same problem, in file order.

    Rows belong together if they share `problem_id` (or `id`), or if prompt and answer are equal;
    the first row's id stays.

    Args:
        sources: Where to read.
        settings: Field names and filters.
        counts: Counts of rows, merged rows and drops are added to it.

    Returns:
        The problems, at least one.

    Raises:
        ValueError: If a row is bad or contradicts another one (file, line and field are named),
            or if nothing is left.
    """
    rows = (item for source in sources for item in read_rows(source))
    problems = _merge(rows, settings, counts)
    if not problems:
        names = ", ".join(repr(source.data) for source in sources)
        raise ValueError(f"No problem was found in {names}: {counts['rows']} rows were read.")
    return problems


def _merge(
    rows: Iterable[tuple[str, Row]], settings: EnvSettings, counts: Counter[str]
) -> list[RawProblem]:
    problems: list[RawProblem] = []
    by_id: dict[str, RawProblem] = {}
    by_text: dict[tuple[str, str], RawProblem] = {}
    for place, row in rows:
        counts["rows"] += 1
        problem = _raw_problem(row, place, settings)
        if problem is None:
            counts["dropped_no_parseable_answer"] += 1
            continue
        same_text = by_text.get((problem.prompt, problem.answer))
        known = by_id.get(problem.problem_id, same_text)
        if known is None:
            problems.append(problem)
            known = problem
        else:
            _check_equal(known, problem)
            counts["merged_rows"] += 1
            texts = {text for _, text in known.demonstrations}
            known.demonstrations += [d for d in problem.demonstrations if d[1] not in texts]
        by_id.setdefault(problem.problem_id, known)
        by_text.setdefault((problem.prompt, problem.answer), known)
    return problems


def _check_equal(first: RawProblem, second: RawProblem) -> None:
    for name in ("answer", "prompt"):
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours != theirs:
            raise ValueError(
                f"{second.source}: field {name!r} is {_shortened(theirs)}, but {first.source} has "
                f"{_shortened(ours)} for the same problem id {second.problem_id!r}. Rows of one "
                "problem must agree; give different problems different ids."
            )


def _raw_problem(row: Row, place: str, settings: EnvSettings) -> RawProblem | None:
    """Check one row; None if its missing answer is to be filtered."""
    prompt = _text(row, "prompt", place, settings)
    if prompt is None:
        raise ValueError(f"{place}: {_missing('prompt', settings)}")
    task = _task(row, place, settings)
    answer = task or _text(row, "answer", place, settings)
    if answer is None:
        if "no_parseable_answer" in settings.filters:
            return None
        raise ValueError(
            f"{place}: {_missing('answer', settings)} Without an answer no response can be graded; "
            "filters=['no_parseable_answer'] drops and counts such rows."
        )
    problem_id = _text(row, "problem_id", place, settings) or _text(row, "id", place, settings)
    if problem_id is None:
        digest = hashlib.sha256(f"{prompt}\0{answer}".encode("utf-8", "surrogatepass"))
        problem_id = digest.hexdigest()[:16]
    texts = dict.fromkeys(_demonstrations(row, place, settings))
    return RawProblem(
        problem_id=problem_id,
        domain=_text(row, "domain", place, settings) or ("code" if task else "math"),
        prompt=prompt,
        answer=answer,
        source=place,
        demonstrations=[(place, text) for text in texts],
    )


def _task(row: Row, place: str, settings: EnvSettings) -> str | None:
    """Return the tests of a row as a gold answer; None if it has none."""
    name, tests = _find(row, "tests", place, settings)
    if tests is None:
        return None
    try:
        return pack_task(tests, _text(row, "entry_point", place, settings))
    except ValueError as error:
        raise ValueError(f"{place}: field {name!r}: {error}") from error


def _find(row: Row, field_name: str, place: str, settings: EnvSettings) -> tuple[str, Any]:
    """Return the name under which a field stands in the row, and its value or None."""
    mapped = settings.fields.get(field_name)
    if mapped is not None:
        found, value = nested_value(row, mapped)
        if not found:
            raise ValueError(
                f"{place}: there is no field {mapped!r}, which env_config['fields'] names for "
                f"{field_name!r}. The row has: {', '.join(map(str, row))}."
            )
        return mapped, value
    for name in _NAMES[field_name]:
        if name in row and row[name] is not None:
            return name, row[name]
    return _NAMES[field_name][0], None


def _text(row: Row, field_name: str, place: str, settings: EnvSettings) -> str | None:
    """Read a text field; None if it is absent, null or blank."""
    name, value = _find(row, field_name, place, settings)
    if isinstance(value, int) and not isinstance(value, bool) and field_name != "prompt":
        value = str(value)
    if isinstance(value, bool | float):
        raise ValueError(
            f"{place}: field {name!r} is the {type(value).__name__} {value!r}. Write it as text, "
            f'for example "{value:g}", so that its form is yours and nothing is rounded.'
        )
    if value is not None and not isinstance(value, str):
        raise ValueError(
            f"{place}: field {name!r} must be text, got {type(value).__name__} "
            f"{_shortened(value)}. A field inside it can be named in env_config['fields'] with "
            'dots, for example {"prompt": "prompt.1.content"}.'
        )
    return value if value is not None and value.strip() else None


def _demonstrations(row: Row, place: str, settings: EnvSettings) -> list[str]:
    name, value = _find(row, "demonstration", place, settings)
    texts = value if isinstance(value, list | tuple) else [] if value is None else [value]
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"{place}: field {name!r} must be null, text or a list of texts (none of them "
                f"blank), got {_shortened(value)}."
            )
    return list(texts)


def _missing(field_name: str, settings: EnvSettings) -> str:
    names = settings.fields.get(field_name) or " / ".join(_NAMES[field_name])
    return (
        f"the problem has no {field_name}: field {names!r} is absent, null or blank. "
        "Map another field with env_config['fields']."
    )


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
