"""Writes the README's house plan: one line a room, from the docstrings, from the top down.

python docs/house_plan.py          # rewrites the table in README.md
python docs/house_plan.py --check  # exit code 1 if it differs
"""

import argparse
import ast
import sys
from pathlib import Path

from prefix_rft_rllib.basics import markdown

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- rooms: written by docs/house_plan.py -->", "<!-- end of rooms -->"
DOORS = (
    *("prefix_rft.py", "prefix_rft_config.py", "metrics.py", "preflight.py", "verify.py"),
    *("evaluate.py", "resume.py"),
)
FLOORS = (
    ("reports", "runs"),
    ("iterations", "transfers"),
    ("settings",),
    ("learners", "evaluation"),
    ("rollouts",),
    ("methods", "models"),
    ("core", "engines"),
    ("processes",),
    ("basics",),
)
"""Rooms of the package from the top down: each imports from floors below its own, and no other."""
ENVS = ("problems", "demonstrations", "verifiers", "sandbox", "workers", "rows", "prompts", "toy")


def first_line(path: Path) -> str:
    """First line of a module's docstring, without its full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path} has no docstring"
    return docstring.splitlines()[0].rstrip(".")


def table() -> str:
    """The table in Markdown."""
    package, envs = ROOT / "prefix_rft_rllib", ROOT / "envs"
    rows = [(f"`prefix_rft_rllib/{name}`", package / name) for name in DOORS]
    rooms = [room for floor in FLOORS for room in floor]
    rows += [(f"`prefix_rft_rllib/{room}/`", package / room / "__init__.py") for room in rooms]
    rows.append(("`envs/`, imported as `prefix_rft_rllib.envs`", envs / "__init__.py"))
    rows += [(f"`envs/{room}/`", envs / room / "__init__.py") for room in ENVS]
    lines = [(place, first_line(path)) for place, path in rows]
    others = "runs with measured results, timings, pages, tests"
    lines.append(("`tuned_examples/`, `benchmarks/`, `docs/`, `tests/`", others))
    return markdown.table(("place", "what is there"), lines)


def with_table(text: str) -> str:
    """The README with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    assert after, f"{README} has no lines {BEGIN} and {END}"
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> int:
    """Rewrite or check the README; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    text = README.read_text(encoding="utf-8")
    new = with_table(text)
    if parser.parse_args().check:
        return int(new != text)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
