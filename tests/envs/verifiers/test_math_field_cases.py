r"""Answers as datasets and models write them earn if they are right, and only then."""

import re

import pytest

from prefix_rft_rllib.envs.verifiers import MathVerifier, Verdict
from tests.envs.verifiers.math_field_cases import field_cases, odd_formulas

CASES = field_cases()
KINDS = list(dict.fromkeys(case.kind for case in CASES))


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(num_workers=2) as verifier:
        yield verifier


@pytest.fixture(scope="module")
def verdicts(verifier):
    responses, golds = [case.response for case in CASES], [case.gold for case in CASES]
    return dict(zip(CASES, verifier.verify_batch(responses, golds), strict=True))


def test_every_kind_has_answers_that_earn_and_answers_that_do_not():
    assert len(set(CASES)) == len(CASES) > 300
    for kind in KINDS:
        assert {case.earns for case in CASES if case.kind == kind} == {True, False}


@pytest.mark.parametrize("kind", KINDS)
def test_answers_of_a_kind_earn_if_and_only_if_they_are_right(verdicts, kind):
    wrong = [
        (case.gold, case.answer, str(verdict))
        for case, verdict in verdicts.items()
        if case.kind == kind and (verdict == Verdict.CORRECT) != case.earns
    ]
    assert wrong == []


def test_no_number_is_taken_out_of_a_formula(verifier):
    pairs = [
        pair
        for formula in odd_formulas()
        for number in dict.fromkeys(re.findall(r"\d+(?:\.\d+)?", formula))
        for pair in ((formula, number), (number, formula))
    ]
    responses = [f"It is $\\boxed{{{answer}}}$." for _, answer in pairs]
    verdicts = verifier.verify_batch(responses, [gold for gold, _ in pairs])
    paid = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict == "CORRECT"]
    assert paid == []
