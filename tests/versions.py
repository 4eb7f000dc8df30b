"""Versions of the packages that setup.py names.

    python tests/versions.py installed    # what is installed here
    python tests/versions.py lowest       # the lowest allowed, as constraints for pip

The package itself must be installed: its metadata are read.
"""

import platform
import re
import sys
from importlib import metadata

PACKAGE = "prefix_rft_rllib"


def requirements() -> dict[str, str]:
    """Version specifiers by package name, those of the extras among them."""
    found = {}
    for line in metadata.requires(PACKAGE) or []:
        match = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?([^;]*)", line)
        assert match is not None, line
        found[match[1].lower()] = match[2].strip()
    return found


def lowest(specifier: str) -> str:
    """The lower bound of a specifier, such as 2.1 of "<3,>=2.1"."""
    match = re.search(r"[>=]=([\w.]+)", specifier)
    if match is None:
        raise ValueError(f"The specifier {specifier!r} has no lower bound (>= or ==).")
    return match[1]


def installed(name: str) -> str:
    """The installed version of a package, or that it is missing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def main(what: str = "installed") -> None:
    """Print one line per package; `what` is "installed" or "lowest"."""
    if what not in ("installed", "lowest"):
        raise SystemExit(f'Say "installed" or "lowest", got {what!r}.')
    if what == "installed":
        print(f"python {platform.python_version()}")
    for name, specifier in requirements().items():
        print(f"{name}=={lowest(specifier)}" if what == "lowest" else f"{name} {installed(name)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
