"""Verifiers by name and by import path."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from prefix_rft_rllib.envs.verifiers import (
    MathVerifier,
    Verdict,
    load_verifier,
    max_threads,
)
from prefix_rft_rllib.envs.verifiers.shared_verifier import SharedVerifier

PROBLEM = SimpleNamespace(answer="42")


def number_of_letters(response, problem, factor=1):
    return factor * float(len(response))


def test_math_is_known_by_name():
    verify = load_verifier("math", {"num_workers": 1})
    assert verify(r"\boxed{42}", PROBLEM) is Verdict.CORRECT
    assert verify(r"\boxed{43}", PROBLEM) is Verdict.WRONG


def test_equal_configurations_share_one_pool():
    one = MathVerifier.shared(num_workers=1, timeout_s=5.0)
    assert MathVerifier.shared(timeout_s=5.0, num_workers=1) is one


def test_threads_that_ask_at_a_time_get_one_object():
    built = []

    class Slow(SharedVerifier):
        def __init__(self, *, a, b):
            time.sleep(0.05)
            built.append((a, b))

    with ThreadPoolExecutor(8) as executor:
        objects = set(executor.map(lambda _: Slow.shared(a=1, b=[2]), range(8)))
    assert built == [(1, [2])]
    assert objects == {Slow.shared(b=[2], a=1)}
    assert Slow.shared(a=2, b=[2]) not in objects
    with pytest.raises(ValueError, match=r"\['c'\] of Slow; known: \['a', 'b'\]"):
        Slow.shared(a=1, c=2)


@pytest.mark.parametrize(
    ("name", "config", "threads"),
    [
        ("math", {"num_workers": 3}, 3),
        ("math", {}, 4),
        ("code", {"num_workers": 5}, 5),
        ("code", {}, 16),
        ("domain", {}, 16),
        ("domain", {"code": {"num_workers": 2}}, 4),
        (f"{__name__}:number_of_letters", {"num_workers": 3}, 1),
    ],
)
def test_as_many_threads_may_ask_as_there_are_workers(monkeypatch, name, config, threads):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert max_threads(name, config) == threads


@pytest.mark.parametrize("separator", [":", "."])
def test_any_function_is_known_by_its_import_path(separator):
    path = f"{__name__}{separator}number_of_letters"
    assert load_verifier(path)("abc", PROBLEM) == 3.0
    assert load_verifier(path, {"factor": 2})("abc", PROBLEM) == 6.0


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("maths", None, "unknown verifier 'maths'; known: 'math'"),
        ("no_such_module:verify", None, "cannot be imported"),
        (f"{__name__}:no_such_function", None, "cannot be imported"),
        (f"{__name__}:PROBLEM", None, "not a function"),
        ("math", {"timeout": 3}, r"unknown setting\(s\) \['timeout'\]"),
    ],
)
def test_a_wrong_name_or_setting_is_a_clear_error(name, config, message):
    with pytest.raises(ValueError, match=message):
        load_verifier(name, config)
