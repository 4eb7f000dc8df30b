"""What a code verdict says beside the verdict: worked out by hand, and bounded."""

from types import SimpleNamespace

import pytest

from prefix_rft_rllib.envs.verifiers import Graded, Verdict, load_verifier
from prefix_rft_rllib.envs.verifiers.code_tests import pack_task
from prefix_rft_rllib.envs.verifiers.code_verifier import CodeResult, CodeVerifier

TESTS = {"kind": "asserts", "asserts": ["assert f(1) == 2", "assert f(2) == 3"]}
WIDE = "\U000e0001"  # ten characters as an escape
LONG = f"{WIDE!r} * 5000"


@pytest.fixture(scope="module")
def verifier():
    with CodeVerifier(extract="whole", num_workers=1, timeout_s=5.0) as verifier:
        yield verifier


def details(verifier, code, tests=TESTS) -> dict:
    """The details but the isolation, which depends on the machine."""
    found = verifier.verify(code, tests).details
    assert found.pop("isolation") == verifier.isolation
    return found


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(x): return x + 1", {"num_passed": 2, "num_tests": 2}),
        (
            "def f(x):\n    print('hm')\n    return 2",
            {
                "reason": "the assertion does not hold",
                "test": "assert f(2) == 3",
                "got": "2",
                "output": "hm\nhm\n",
                "num_passed": 1,
                "num_tests": 2,
            },
        ),
        (  # A call that raises gives nothing back, which is not None.
            "def f(x):\n    if x == 2: raise ValueError('no')\n    return 2",
            {
                "reason": "ValueError: no",
                "test": "assert f(2) == 3",
                "num_passed": 1,
                "num_tests": 2,
            },
        ),
        (  # The attempt fails whatever the tests make of it: they end in the second.
            "def f(x):\n    if x == 2: raise SystemExit(0)\n    return 2",
            {
                "reason": "the attempt raised SystemExit: 0",
                "test": "assert f(2) == 3",
                "num_passed": 1,
                "num_tests": 2,
            },
        ),
        (
            "x = = 2",
            {
                "reason": "SyntaxError: invalid syntax (solution.py, line 1)",
                "num_passed": 0,
                "num_tests": 2,
            },
        ),
    ],
)
def test_details_of_an_attempt_by_hand(verifier, code, expected):
    assert details(verifier, code) == expected


def test_of_a_single_test_the_line_is_told_and_no_counts(verifier):
    code = "def check(c):\n    n = c(1)\n    assert n == 2\n"
    tests = {"kind": "check", "code": code}
    found = verifier.verify("def low(x): raise KeyboardInterrupt", tests, "low").details
    assert found["test"] == "n = c(1)"
    assert "num_tests" not in found


def test_a_program_tells_the_case_and_both_outputs(verifier):
    cases = [{"input": "1", "output": "1"}, {"input": "2", "output": "4"}]
    found = details(verifier, "print(input())", {"kind": "stdin_stdout", "cases": cases})
    assert found == {
        "reason": "the output differs from '4'",
        "test": "case 2: input '2'",
        "got": "'2\\n'",
        "output": "2\n",
        "num_passed": 1,
        "num_tests": 2,
    }


def test_where_nothing_ran_there_is_no_isolation():
    result = CodeResult(Verdict.UNPARSEABLE, "the response holds no code block")
    assert result.details == {"reason": "the response holds no code block"}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (f"def f(x):\n    print({LONG})\n    return {LONG}", "asserts"),
        ("def f(x): raise ValueError('\\ud800\\x1b\\0' * 5000)", "asserts"),
        ("class X" + "y" * 5000 + "(Exception): pass\nraise X" + "y" * 5000, "asserts"),
        ("raise SystemExit('\\ud800\\x1b\\0' * 5000)", "asserts"),
        ("x = = " + "y" * 5000, "asserts"),
        (f"print({LONG})", "stdin_stdout"),
        ("raise ValueError('\\ud800\\x1b\\0' * 5000)", "stdin_stdout"),
    ],
)
def test_no_attempt_makes_a_text_of_more_than_2100_characters(verifier, code, kind):
    tests = {
        "asserts": ["assert f(1) == 2  # " + "x" * 5000],
        "cases": [{"input": WIDE * 5000, "output": "no"}],
    }
    found = details(verifier, code, {"kind": kind, **tests})
    assert found["reason"]
    assert max(map(len, found.values())) <= 2100


@pytest.mark.parametrize("name", ["code", "domain"])
def test_the_verifier_of_an_environment_gives_the_details(name):
    config = {"num_workers": 1, "extract": "whole", "share_reward": True}
    verify = load_verifier(name, config if name == "code" else {"code": config})
    problem = SimpleNamespace(answer=pack_task(TESTS, "f"), prompt="", domain="code")
    graded = verify("def f(x): return 2", problem)
    assert isinstance(graded, Graded)
    # The share of passed tests is paid; the details still say which one failed.
    assert graded.outcome == 0.5
    assert (graded.details["test"], graded.details["got"]) == ("assert f(2) == 3", "2")
    assert graded.details["isolation"] in ("namespaces", "none")
