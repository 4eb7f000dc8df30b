"""Verifiers: response and problem in, `Verdict` out."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from prefix_rft_rllib.envs.verifiers.math_verifier import MathVerifier, shared_math_verifier
from prefix_rft_rllib.envs.verifiers.verdict import Verdict

if TYPE_CHECKING:
    from prefix_rft_rllib.envs.problems import Problem

Verifier = Callable[[str, "Problem"], "Verdict | float"]

__all__ = ["MathVerifier", "Verdict", "Verifier", "load_verifier", "shared_math_verifier"]


def load_verifier(name_or_path: str, config: Mapping[str, Any] | None = None) -> Verifier:
    """Return the function that grades a response to a problem.

    Args:
        name_or_path: "math", or the import path of a function
            `verify(response, problem, **config) -> Verdict | float`, written
            "package.module:function" or "package.module.function".
        config: Keyword arguments: of `MathVerifier` for "math" (one worker pool is shared
            by equal configurations of a process), else of the function, given with every
            call.

    Returns:
        `verify(response, problem)`.

    Raises:
        ValueError: If the name is unknown, the path cannot be imported or does not name a
            function, or a setting is unknown.
    """
    config = dict(config or {})
    if name_or_path == "math":
        verifier = shared_math_verifier(**config)

        def verify(response: str, problem: Problem) -> Verdict:
            return verifier.verify(response, problem.answer)

        return verify
    function = _import_function(name_or_path)
    return functools.partial(function, **config) if config else function


def _import_function(path: str) -> Callable[..., Any]:
    module_name, _, function_name = path.replace(":", ".").rpartition(".")
    if not module_name:
        raise ValueError(
            f"unknown verifier {path!r}; known: 'math', or the import path of your own "
            "function, such as 'my_package.my_module:verify'."
        )
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the verifier {path!r} cannot be imported: {error}. Give the import path of a "
            "function, such as 'my_package.my_module:verify'."
        ) from error
    if not callable(function):
        raise ValueError(f"the verifier {path!r} is a {type(function).__name__}, not a function.")
    return function
