"""Every row of docs/faults.md names tests, and each of these is there."""

import re
from pathlib import Path

from prefix_rft_rllib import metrics

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
NAME = re.compile(r"`(test_\w+)(\.py|\[\w+\])?`")


def rows() -> list[str]:
    """Rows of the tables of faults, without their headings."""
    tables = re.findall(r"^\| fault \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    return [row for table in tables for row in table.splitlines()]


def test_every_fault_has_an_outcome_and_a_test_that_is_there():
    files = {path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/*.py")}
    functions = set(re.findall(r"^def (test_\w+)", "\n".join(files.values()), flags=re.MULTILINE))
    assert len(rows()) > 25
    for row in rows():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 7 and cells[2] and cells[3], row
        named = NAME.findall(cells[-1])
        assert named, row
        for name, kind in named:
            assert f"{name}.py" in files if kind == ".py" else name in functions, name


def test_every_counter_of_faults_is_on_the_page():
    for name in metrics.FAULT_METRICS:
        assert f"| `{metrics.FAULTS}/{name}` |" in PAGE
