"""Honest programs pass, whatever customs they follow."""

import pytest

from prefix_rft_rllib.envs.verifiers.code_verifier import CodeVerifier


@pytest.fixture(scope="module")
def verifier():
    with CodeVerifier(extract="whole", num_workers=2, timeout_s=5.0) as verifier:
        yield verifier


def asserts(*lines):
    return {"kind": "asserts", "asserts": list(lines)}


def verdict(verifier, code, tests, entry_point=None):
    return str(verifier.verify(code, tests, entry_point).verdict)


def test_the_limit_of_output_is_none_of_code_and_input():
    long = "x = '" + "a" * 100_000 + "'\n"
    add = asserts("assert add(1, 2) == 3")
    tests = {"kind": "stdin_stdout", "cases": [{"input": "1 " * 50_000, "output": "50000"}]}
    with CodeVerifier(extract="whole", output_kb=1, num_workers=1) as small:
        assert verdict(small, long + "def add(a, b): return a + b", add, "add") == "CORRECT"
        given = asserts("xs = [0] * 50000\nassert f(xs) == 50000")
        assert verdict(small, "def f(x): return len(x)", given) == "CORRECT"
        assert verdict(small, long + "print(len(input().split()))", tests) == "CORRECT"
        assert verdict(small, "def add(a, b): return [3] * 5000", add, "add") == "WRONG"
