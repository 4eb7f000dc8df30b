"""Functions that a user names by import path."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def import_function(path: str, what: str, example: str) -> Callable[..., Any]:
    """Return the function that an import path names.

    Args:
        path: "package.module:function" or "package.module.function".
        what: What the function is for the user, such as "verifier".
        example: A path as it should look.

    Returns:
        The function.

    Raises:
        ValueError: If the module cannot be imported, or does not have such a function.
    """
    module_name, _, function_name = path.replace(":", ".").rpartition(".")
    advice = f"Give the import path of a function, such as '{example}'."
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # importing a module runs it
        kind = (
            "" if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: "
        )
        raise ValueError(
            f"the {what} {path!r} cannot be imported: {kind}{error}. {advice}"
        ) from error
    if not callable(function):
        raise ValueError(
            f"the {what} {path!r} is of the type {type(function).__name__}, not a function. "
            f"{advice}"
        )
    return function
