"""Versions of the packages that setup.py names.

`python tests/versions.py installed` prints what this interpreter has,
`python tests/versions.py lowest` the lowest allowed, as constraints for pip.
"""

import ast
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]


def requirements(*extras: str) -> dict[str, str]:
    """What setup.py asks for: specifiers such as ">=2,<3", by package name.

    Args:
        *extras: Names of extras whose packages belong to it; none: what everybody needs.
    """
    nodes = ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")))
    keywords = {node.arg: node.value for node in nodes if isinstance(node, ast.keyword)}
    lines = ast.literal_eval(keywords["install_requires"])
    all_extras = ast.literal_eval(keywords["extras_require"])
    found = {}
    for line in lines + [line for extra in extras for line in all_extras[extra]]:
        name, _, specifier = re.fullmatch(r"([\w-]+)(\[[\w,-]+\])?(.*)", line).groups()
        found[name] = specifier
    return found


def lowest(specifier: str) -> str:
    """The lower bound of a specifier, such as 2.1 of ">=2.1,<3"."""
    match = re.match(r"[>=]=([\w.]+)", specifier)
    if match is None:
        raise ValueError(f"{specifier!r} must begin with the lower bound, >= or ==.")
    return match[1]


def installed(name: str) -> str:
    """The installed version of a package, or that it is missing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def main(what: str = "installed") -> None:
    """Print one line per package; `what` is "installed" or "lowest"."""
    packages = requirements("test", "lora", "plot", "real-model")
    if what == "installed":
        print(f"python {platform.python_version()}")
        for name in packages:
            print(f"{name} {installed(name)}")
    elif what == "lowest":
        for name, specifier in packages.items():
            print(f"{name}=={lowest(specifier)}")
    else:
        raise SystemExit(f'Say "installed" or "lowest", got {what!r}.')


if __name__ == "__main__":
    main(*sys.argv[1:])
