"""Tests of a code problem as its gold answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from prefix_rft_rllib.basics.old_names import renamed
from prefix_rft_rllib.envs.sandbox.jobs import check_tests

_MARK = "code_tests"


def pack_task(tests: Mapping[str, Any], entry_point: str | None) -> str:
    """Return tests and entry point as one text: the gold answer of a code problem.

    Raises:
        ValueError: If they are malformed; see `check_tests`.
    """
    check_tests(tests, entry_point)
    return json.dumps({_MARK: dict(tests), "entry_point": entry_point}, sort_keys=True)


def is_task(answer: str) -> bool:
    """Return whether a gold answer is a text of `pack_task`."""
    return answer.startswith(f'{{"{_MARK}": ')


def unpack_task(answer: str) -> tuple[dict[str, Any], str | None]:
    """Return tests and entry point of a text of `pack_task`.

    Raises:
        ValueError: If it is none.
    """
    if not is_task(answer):
        raise ValueError(
            f"a problem for the code verifier needs tests; its answer is {answer!r:.80}"
        )
    task = json.loads(answer)
    return task[_MARK], task["entry_point"]


__getattr__ = partial(renamed, __name__)
