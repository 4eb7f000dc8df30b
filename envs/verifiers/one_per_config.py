"""Verifiers are shared within a process, one for equal settings; unknown settings are refused."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

Built = TypeVar("Built")


def one_per_config(build: Callable[..., Built]) -> Callable[..., Built]:
    """Make a function that builds from keyword arguments return the same object for equal ones.

    Args:
        build: Called once for each set of arguments, also when several threads ask at a time. An
            exception is raised again and nothing is kept.

    Returns:
        The function; its arguments are compared by their `repr`, whatever their order.
    """
    kept: dict[str, Built] = {}
    lock = threading.Lock()

    @functools.wraps(build)
    def get(**config: Any) -> Built:
        key = repr(sorted(config.items()))
        with lock:
            if key not in kept:
                kept[key] = build(**config)
            return kept[key]

    return get


def refuse_unknown(config: Iterable[str], known: Sequence[str], verifier: str) -> None:
    """Refuse settings that a verifier does not have.

    Args:
        config: The names that were given.
        known: The names of its settings.
        verifier: What it is called.

    Raises:
        ValueError: Naming the unknown ones and the known.
    """
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise ValueError(
            f"unknown setting(s) {unknown} of the {verifier} verifier; known: {list(known)}"
        )
