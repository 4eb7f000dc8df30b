"""Verifiers are shared within a process, one for equal settings; unknown settings are refused."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterable
from typing import Any, ClassVar, Self


class SharedVerifier:
    """A verifier of which a process needs one for each configuration."""

    _kept: ClassVar[dict[tuple[type, str], Any]] = {}
    _lock: ClassVar = threading.Lock()

    @classmethod
    def settings(cls) -> list[str]:
        """The names of its settings: the keyword arguments of its constructor."""
        parameters = inspect.signature(cls).parameters.values()
        return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]

    @classmethod
    def shared(cls, **config: Any) -> Self:
        """Return this process's verifier for a configuration, building it on first use.

        Args:
            **config: Arguments of the constructor, compared by their `repr`, whatever their order.

        Returns:
            The same object for equal arguments, also when several threads ask at a time. An
            exception is raised again and nothing is kept.

        Raises:
            ValueError: If an argument is unknown or outside its range.
        """
        key = (cls, repr(sorted(config.items())))
        with cls._lock:
            if key not in cls._kept:
                cls.refuse_unknown(config)
                cls._kept[key] = cls(**config)
            found: Self = cls._kept[key]
            return found

    @classmethod
    def refuse_unknown(cls, names: Iterable[str]) -> None:
        """Refuse settings that the verifier does not have.

        Args:
            names: The names that were given.

        Raises:
            ValueError: Naming the unknown ones and the known.
        """
        unknown = sorted(set(names) - set(cls.settings()))
        if unknown:
            raise ValueError(
                f"unknown setting(s) {unknown} of {cls.__name__}; known: {cls.settings()}"
            )
