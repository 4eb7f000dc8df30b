"""The four kinds of tests, checked and turned into jobs."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

KINDS = {
    "asserts": ("asserts",),
    "check": ("code",),
    "script": ("code",),
    "stdin_stdout": ("cases",),
}


def check_tests(tests: Any, entry_point: str | None) -> None:
    """Check the tests of a problem.

    Args:
        tests: `kind` and what it needs: "asserts": a list `asserts`, maybe `setup`. "check":
            `code` that defines `check(candidate)`. "script": `code`, maybe `setup`, which runs
            before the solution too. "stdin_stdout": a list `cases` of `input` and `output`.
        entry_point: An expression for what "check" passes on; a name the tests take from the
            attempt whatever else it may mean.

    Raises:
        ValueError: If something is missing or of the wrong type; says what and where.
    """
    if not isinstance(tests, Mapping):
        raise ValueError(f"`tests` must be a dict, got {type(tests).__name__}.")
    kind = tests.get("kind")
    if kind not in KINDS:
        raise ValueError(f"`tests.kind` must be one of {list(KINDS)}, got {kind!r}.")
    for name in ("setup", *KINDS[kind]):
        value = tests.get(name, "" if name == "setup" else None)
        if name in ("setup", "code") and not isinstance(value, str):
            raise ValueError(f"`tests.{name}` must be a text, got {value!r:.80}.")
        if name in ("asserts", "cases") and not (isinstance(value, list | tuple) and value):
            raise ValueError(f"`tests.{name}` must be a list with something in it, got {value!r}.")
    if not all(isinstance(line, str) for line in tests.get("asserts", ())):
        raise ValueError("`tests.asserts` must hold texts.")
    for case in tests.get("cases", ()):
        sides = [case.get(s) for s in ("input", "output")] if isinstance(case, Mapping) else []
        if len(sides) != 2 or not all(isinstance(side, str) for side in sides):
            raise ValueError(f"`tests.cases` must hold `input` and `output`, got {case!r:.80}.")
    _check_entry_point(entry_point, needed=kind == "check")


def _check_entry_point(entry_point: str | None, needed: bool) -> None:
    if entry_point is None and not needed:
        return
    try:
        if not isinstance(entry_point, str):
            raise ValueError("not a text")
        ast.parse(entry_point, mode="eval")
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"`entry_point` must be an expression such as 'add' or 'Solution().add', "
            f"got {entry_point!r}: {error}"
        ) from error


def job_of(
    code: str,
    tests: Mapping[str, Any],
    entry_point: str | None,
    helpers: str,
) -> dict[str, Any]:
    """Return the job that runs the tests on an attempt's code.

    Args:
        code: Of the attempt.
        tests: As `check_tests` accepts them.
        entry_point: Likewise.
        helpers: Functions that the tests may use and that are not taken from the attempt.

    Returns:
        Plain data for `Supervision`, which wants `run_all` and `tolerance` beside it.
    """
    kind = tests["kind"]
    if kind == "stdin_stdout":
        cases = [[_unmarked(case["input"]), case["output"]] for case in tests["cases"]]
        return {"operation": "program", "code": code, "cases": cases}
    setup = _unmarked(tests.get("setup", ""))
    sources = tests["asserts"] if kind == "asserts" else [tests["code"]]
    return {
        "operation": "judge",
        "code": code,
        "header": setup if kind == "script" else "",
        "setup": setup,
        "helpers": helpers,
        "tests": [_unmarked(source) for source in sources],
        "entry_point": entry_point or "",
        "calls_check": kind == "check",
    }


def _unmarked(text: str) -> str:
    """Return a text without a byte order mark, which a file's first one may carry."""
    return text.removeprefix("\ufeff")
