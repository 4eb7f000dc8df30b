"""setup.py, constraints.txt and the README's table name the same versions."""

import re

import pytest
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.versions import ROOT, installed, lowest, requirements

NEEDED = requirements("lora", "plot", "real-model", "lm-eval", "vllm")


def readme_table() -> dict[str, tuple[str, str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.split("| package | lowest tested | newest tested |\n|---|---|---|\n")[1]
    rows = re.findall(r"^\| ([\w-]+) \| ([\w.]+) \| ([\w.]+) \|$", table.split("\n\n")[0], re.M)
    return {name: (low, high) for name, low, high in rows}


def test_the_readme_has_a_row_for_every_package_that_is_needed() -> None:
    assert readme_table().keys() == {"Python", *NEEDED}


@pytest.mark.parametrize("name", NEEDED)
def test_the_lowest_allowed_release_is_the_lowest_tested(name: str) -> None:
    assert Version(readme_table()[name][0]) == Version(lowest(NEEDED[name]))


@pytest.mark.parametrize("name", NEEDED)
def test_the_newest_tested_release_is_allowed(name: str) -> None:
    assert readme_table()[name][1] in SpecifierSet(NEEDED[name])


def test_the_tested_set_is_allowed() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    pinned = {canonicalize_name(name): version for name, version in pairs}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    pinned["torch"] = re.search(r"^TORCH_VERSION := (.*)$", makefile, re.M)[1]
    extras = ("test", "dev", "lora", "plot", "real-model", "lm-eval")
    for name, specifier in requirements(*extras).items():
        assert pinned[canonicalize_name(name)] in SpecifierSet(specifier), name


def test_a_lower_bound_is_read_and_a_missing_one_refused() -> None:
    assert lowest(">=2.1,<3") == "2.1"
    assert lowest("==0.32.0") == "0.32.0"
    with pytest.raises(ValueError, match="'<3' must begin with the lower bound"):
        lowest("<3")


def test_packages_are_looked_up_by_name() -> None:
    assert re.fullmatch(r"\d+\.\d+.*", installed("torch"))
    assert installed("no-such-package-here") == "not installed"
