"""Every import path that README, docs, examples and benchmarks use works as it stands there."""

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from prefix_rft_rllib.basics import old_names

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "tuned_examples" / "README.md", ROOT / "benchmarks" / "README.md"]
SCRIPTS = sorted(
    path for folder in ("tuned_examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
DOTTED = re.compile(r"\bprefix_rft_rllib(?:\.\w+)+")
FILE = re.compile(r"\b(?:prefix_rft_rllib|envs|tests|tuned_examples|benchmarks|docs)/[\w/]+\.\w+")


def imports_of(source: str) -> list[tuple[str, tuple[str, ...]]]:
    """Modules of this package that a source imports, and the names taken from each."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, tuple(alias.name for alias in node.names)))
    return [pair for pair in found if pair[0].split(".")[0] == "prefix_rft_rllib"]


def assert_importable(module: str, names: tuple[str, ...] = ()) -> None:
    """Import without a note about an older path."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="`prefix_rft_rllib", category=DeprecationWarning)
        loaded = importlib.import_module(module)
        for name in names:
            if not hasattr(loaded, name):
                importlib.import_module(f"{module}.{name}")


def assert_path_exists(dotted: str) -> None:
    """A dotted name is a module, or something in one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        except ImportError as error:
            if "Install it: pip install" in str(error):
                return  # a module whose library is missing here
            raise
        for name in parts[length:]:
            found = getattr(found, name)
        assert ".".join(parts[:length]) not in old_names.MOVED, f"{dotted} is an older path"
        return
    raise AssertionError(f"{dotted}: no such module")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_on_a_page_imports_what_exists(page):
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for module, names in imports_of(block):
            assert_importable(module, names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_and_files_on_a_page_exist(page):
    text = page.read_text(encoding="utf-8")
    for dotted in DOTTED.findall(text):
        assert_path_exists(dotted.rstrip("."))
    for name in FILE.findall(text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_imports_what_exists(script):
    for module, names in imports_of(script.read_text(encoding="utf-8")):
        assert_importable(module, names)


def test_the_pages_show_code_and_names():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = BLOCK.findall(text)
    assert sum(len(imports_of(block)) for block in blocks) >= 10
    assert len(DOTTED.findall(text)) >= 15


def test_the_names_of_the_package_are_there_after_a_plain_import():
    package = importlib.import_module("prefix_rft_rllib")
    for name in package.__all__:
        assert name in dir(package)
        assert getattr(package, name) is not None
    assert package.PrefixRFTConfig().algo_class is package.PrefixRFT
    assert package.core.__name__ == "prefix_rft_rllib.core"
    assert package.metrics.ROLLOUTS


def test_the_house_plan_of_the_readme_is_that_of_the_docstrings():
    command = [sys.executable, str(ROOT / "docs" / "house_plan.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run `make docs`"


def test_the_house_plan_names_every_room_and_door():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    package = ROOT / "prefix_rft_rllib"
    rooms = {path.parent for path in package.glob("*/__init__.py")} - {package / "envs"}
    rooms |= {path.parent for path in (ROOT / "envs").glob("*/__init__.py")}
    doors = set(package.glob("*.py")) - {package / "__init__.py"}
    for path in rooms | doors:
        name = path.relative_to(ROOT).as_posix() + ("/" if path in rooms else "")
        assert f"`{name}`" in text, name
