"""Names of a package that load at first use (PEP 562), so that importing the package is cheap."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, places: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package that loads some of its names at first use.

    Args:
        package: Import path of the package, its `__name__`.
        places: By name: "module:attribute", or "module" for a module itself.

    Returns:
        The two functions, to be assigned in the package's `__init__`.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = places[name].partition(":")
        loaded = importlib.import_module(module)
        return getattr(loaded, attribute) if attribute else loaded

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *places})

    return get, names
