r"""Random formulas: spellings of equal value earn, other values do not, nor do constants."""

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.envs.verifiers import MathVerifier, Verdict
from tests.envs.verifiers.math_formulas import differ, formula, integer, surrounded
from tests.envs.verifiers.math_statements import statement
from tests.envs.verifiers.math_structures import structure

SEEDS = st.integers(0, 2**32).map(Random)
CONSTANTS = {
    **{str(number): number for number in range(81)},
    **dict.fromkeys(
        ("x", "n", "\\emptyset", "\\{\\}", "\\text{yes}", "\\text{None}", "\\infty", "-\\infty")
    ),
    **dict.fromkeys(("\\mathbb{R}", "()", "A", "\\text{the answer}", "?", "x = x", "(0,0)")),
    **{"-1": -1, "\\frac12": 0.5, "0.1": 0.1, "100": 100},
}


def seeded(max_examples):
    """The same examples in each run, without a limit for one of them on a busy machine."""
    return settings(
        max_examples=max_examples,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(num_workers=2, timeout_s=10.0) as verifier:
        yield verifier


def earns(verifier, gold, answer):
    return verifier.verify(f"So it is $\\boxed{{{answer}}}$.", gold) == Verdict.CORRECT


@seeded(300)
@given(SEEDS)
def test_a_random_formula_and_a_rewriting_of_equal_value_agree(verifier, rng):
    number = formula(rng)
    gold, answer = number.spell(rng), surrounded(number.spell(rng), rng)
    assert earns(verifier, gold, answer), (gold, answer)


@seeded(300)
@given(SEEDS)
def test_a_random_formula_and_one_of_a_different_value_never_agree(verifier, rng):
    # The second formula is made from nearly the same draws, so that it looks like the first.
    seed = rng.getrandbits(32)
    number, other = formula(Random(seed)), formula(rng if rng.random() < 0.3 else Nudged(seed))
    if differ(number.value, other.value):
        gold, answer = number.spell(rng), surrounded(other.spell(rng), rng)
        assert not earns(verifier, gold, answer), (gold, answer)


class Nudged(Random):
    """Draws that are one larger now and then."""

    def randint(self, a, b):
        """Return an integer of the range, or the one after it."""
        return super().randint(a, b) + 1


@seeded(200)
@given(SEEDS)
def test_a_random_structure_and_a_rewriting_of_it_agree(verifier, rng):
    answer = rng.choice((structure, structure, statement))(rng)
    gold, other = answer.spell(rng), answer.spell(rng)
    assert earns(verifier, gold, other), (gold, other)


@seeded(200)
@given(SEEDS)
def test_a_random_structure_and_a_near_miss_never_agree(verifier, rng):
    answer = rng.choice((structure, structure, statement))(rng)
    gold, other = answer.spell(rng), answer.miss(rng)
    assert not earns(verifier, gold, other), (gold, other)


def test_no_random_gold_pays_for_a_constant_that_it_is_not(verifier):
    rng = Random(0)
    assert len(CONSTANTS) >= 100
    golds = [formula(rng) for _ in range(5)] + [integer(17)]
    texts = [(number.spell(rng), number.value) for number in golds]
    texts += [(structure(rng).spell(rng), None) for _ in range(3)]
    pairs = [
        (gold, constant, value is not None and number is not None and not differ(value, number))
        for gold, value in texts
        for constant, number in CONSTANTS.items()
    ]
    verdicts = verifier.verify_batch(
        [f"\\boxed{{{constant}}}" for _, constant, _ in pairs], [gold for gold, _, _ in pairs]
    )
    paid = [
        pair[:2]
        for pair, verdict in zip(pairs, verdicts, strict=True)
        if (verdict == Verdict.CORRECT) and not pair[2]
    ]
    assert paid == []
    assert sum(pair[2] for pair in pairs) >= 1
