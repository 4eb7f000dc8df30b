"""Verifiers by name and by import path."""

from types import SimpleNamespace

import pytest

from prefix_rft_rllib.envs.verifiers import Verdict, load_verifier, shared_math_verifier

PROBLEM = SimpleNamespace(answer="42")


def number_of_letters(response, problem, factor=1):
    return factor * float(len(response))


def test_math_is_known_by_name():
    verify = load_verifier("math", {"num_workers": 1})
    assert verify(r"\boxed{42}", PROBLEM) is Verdict.CORRECT
    assert verify(r"\boxed{43}", PROBLEM) is Verdict.WRONG


def test_equal_configurations_share_one_pool():
    one = shared_math_verifier(num_workers=1, timeout_s=5.0)
    assert shared_math_verifier(timeout_s=5.0, num_workers=1) is one


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
