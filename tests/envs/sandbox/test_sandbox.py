"""The sandbox on its own: the door, and what a kept sandbox tells of attempts."""

import dataclasses
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prefix_rft_rllib.envs.sandbox import (
    AttemptResult,
    Sandbox,
    SandboxLimits,
    SandboxSettings,
    run_tests,
)
from prefix_rft_rllib.envs.verifiers.code_verifier import CodeVerifier

ROOT = Path(__file__).parents[3]
ADD = {"kind": "asserts", "asserts": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]}


def test_the_door_runs_asserts_on_code():
    result = run_tests("def add(a, b): return a + b", ADD, "add")
    assert (result.verdict, result.num_passed, result.num_tests) == ("CORRECT", 2, 2)
    assert result.passed_fraction == 1.0
    assert result.isolation in ("namespaces", "none")
    assert 0 < result.seconds < 10


def test_the_door_runs_programs_and_keeps_limits():
    tests = {"kind": "stdin_stdout", "cases": [{"input": "2 3", "output": "5"}]}
    right = run_tests("print(sum(map(int, input().split())))", tests)
    assert right.verdict == "CORRECT"
    limits = SandboxLimits(timeout_s=0.3)
    result = run_tests("while True: pass", tests, settings=SandboxSettings(limits=limits))
    assert (result.verdict, result.reason) == ("TIMEOUT", "not done after 0.3 s")


def test_a_kept_sandbox_tells_attempts_apart():
    with Sandbox(SandboxSettings(run_all=True)) as sandbox:
        wrong = sandbox.run_tests("def add(a, b): return 3", ADD, "add")
        broken = sandbox.run_tests("def add(a, b) return 3", ADD, "add")
        null = sandbox.run_tests("x = '\0'", ADD, "add")
        helped = sandbox.run_tests(
            "def add(a, b): return a + b\ndef two(): return 5",
            {"kind": "asserts", "asserts": ["assert add(two(), 1) == 3"]},
            "add",
            "def two(): return 2",
        )
    assert (wrong.verdict, wrong.test, wrong.got) == ("WRONG", "assert add(2, 2) == 4", "3")
    assert (wrong.num_passed, wrong.passed_fraction) == (1, 0.5)
    assert broken.verdict == "UNPARSEABLE"
    assert (null.verdict, null.reason) == ("UNPARSEABLE", "the code holds a null character")
    assert null.isolation == ""
    assert helped.verdict == "CORRECT"  # the tests' helper, not the attempt's


def test_malformed_tests_are_refused_before_anything_runs():
    with pytest.raises(ValueError, match=r"`tests\.kind` must be one of"):
        run_tests("x = 1", {"kind": "guess"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"isolation": "strong"},
            "`isolation` must be one of 'auto', 'namespaces', 'none', got 'strong'",
        ),
        ({"first_user_id": 10}, "`first_user_id` must be a whole number of at least 1000, got 10"),
        ({"packages": "numpy"}, "`packages` must be a list of import names, got 'numpy'"),
        ({"tolerance": 1.0}, r"`tolerance` must be in \[0, 1\), got 1.0\. 0 compares exactly"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SandboxSettings(**settings)


def test_a_sandbox_without_workers_is_refused():
    with pytest.raises(
        ValueError, match="`num_workers` must be a whole number of at least 1, got 0"
    ):
        Sandbox(SandboxSettings(), 0)


@pytest.mark.parametrize(
    ("verdict", "num_passed", "expected"),
    [("CORRECT", 0, 1.0), ("WRONG", 4, 0.75), ("WRONG", 1, 0.25), ("ERROR", 0, 0.0)],
)
def test_the_share_of_passed_tests_is_one_for_correct_attempts_alone(verdict, num_passed, expected):
    result = AttemptResult(verdict, num_passed=num_passed, num_tests=4)
    assert result.passed_fraction == expected


def test_the_code_verifier_has_the_sandboxes_settings_and_defaults():
    parameters = inspect.signature(CodeVerifier).parameters
    for field in dataclasses.fields(SandboxSettings):
        if field.name != "limits":
            assert parameters[field.name].default == field.default, field.name


def test_the_sandbox_works_where_it_stands_alone(tmp_path):
    # Only the two folders, in packages without code: nothing else of this project is there.
    package = tmp_path / "prefix_rft_rllib"
    (package / "envs").mkdir(parents=True)
    for folder in ("sandbox", "workers"):
        shutil.copytree(ROOT / "envs" / folder, package / "envs" / folder)
    for path in (package, package / "envs"):
        (path / "__init__.py").write_text("")
    code = (
        "from prefix_rft_rllib.envs.sandbox import run_tests\n"
        "tests = {'kind': 'asserts', 'asserts': ['assert f(2) == 4']}\n"
        "print(run_tests('def f(x): return 2 * x', tests).verdict)\n"
        "import sys\n"
        "print(sorted({'ray', 'torch', 'numpy', 'gymnasium'} & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True
    )
    assert done.stdout.split("\n")[:2] == ["CORRECT", "[]"], done.stderr
