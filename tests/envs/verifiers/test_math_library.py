r"""What math-verify reads and compares: formulas with an integral or a limit."""

import pytest

from prefix_rft_rllib.envs.verifiers.math_comparison import compare_bare
from prefix_rft_rllib.envs.verifiers.math_golds import is_readable
from prefix_rft_rllib.envs.verifiers.math_library import library_formula
from prefix_rft_rllib.envs.verifiers.math_tokens import UnreadError


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        (r"\int_0^1 x\,dx", r"\frac12", "1"),
        (r"\int_0^1 x\,\mathrm{d}x", "0.5", "0"),
        (r"\int_0^1 x dx", r"\int_0^1 y dy", r"\int_0^2 x dx"),
        (r"\int_0^a x dx", r"\frac{a^2}{2}", r"\frac{a^2}{3}"),
        (r"\int_0^{2\pi} \sin^2 t\,dt", r"\pi", r"2\pi"),
        (r"\lim_{x\to 0} \frac{\sin x}{x}", "1", "0"),
        ("e", r"\lim_{n\to\infty} (1+\frac1n)^n", r"\lim_{n\to\infty} (1+\frac2n)^n"),
        (r"\frac12", r"\int_0^1 x dx", r"\int_0^1 2x dx"),
    ],
)
def test_integrals_and_limits_are_compared_by_value(gold, right, wrong):
    assert is_readable(gold)
    assert compare_bare(right, gold) == "CORRECT"
    assert compare_bare(wrong, gold) == "WRONG"


@pytest.mark.parametrize(
    "text",
    [
        r"\int_0^1 f(x) dx",  # a function becomes a product
        r"\int A^2 dA",  # capital letters become small
        r"\int_0^1 x' dx",  # primes are dropped
        r"\int_0^1 x dx, 3",
        r"\int_0^1 x dx + \ldots",
        r"\int_0^1 x dx \text{ or } 3",
        r"\lim_{x \to 0}",
        r"\oint x",
    ],
)
def test_nothing_is_taken_out_of_a_formula_that_is_not_accounted_for(text):
    with pytest.raises(UnreadError):
        library_formula(text)
    assert not is_readable(text)
    for number in ("0", "1", "2", "3"):
        assert compare_bare(number, text) == "ERROR"


def test_other_unread_answers_stay_unread():
    assert compare_bare(r"3 \oplus", "3") == "UNPARSEABLE"
    assert compare_bare(r"\int_0^1 x dx", r"\text{no}") == "UNPARSEABLE"
