r"""Which answers count as equal; graded in this process, without workers."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.envs.verifiers.math_comparison import compare_bare, grade
from prefix_rft_rllib.envs.verifiers.math_reading import read
from prefix_rft_rllib.envs.verifiers.math_tokens import UnreadError

EQUAL = [
    (r"3\sqrt{13}", r"\sqrt{117}"),
    ("x^2+1", "1+x^2"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"$\frac{1}{2}$", "0.5"),
    ("142.0", "142"),
    (r"\$32,\!348", "32348"),
    (r"\frac13", "0.333333"),
    (r"\frac \pi4", r"\pi/4"),
    ("1.5", "1 1/2"),
    ("1000", "1 000"),
    ("100000", "1e5"),
    (r"\frac{1}{432}", r"2.314814814815 \times 10^{-3}"),
    ("10", r"10\text{ units}"),
    ("10", "10 weeks"),
    ("24", r"24\ \text{cm}^2"),
    ("12", r"12^{\text{th}} \text{ grade}"),
    ("5", "x = 5"),
    (r"\{1, 2\}", "2, 1"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"\text{(C)}", "C"),
    (r"1-\frac1e", r"1-\frac{1}{\mathrm{e}}"),
    ("1+2i", "i(2-i)"),
    (r"\sqrt{6}-\sqrt{2}\sqrt{3}", "0"),
    (r"28\%", "0.28"),
    (r"28\%", "28"),
    ("204_5", r"204_{5}"),
    ("24", r"\text{The answer is } 24"),
]

DIFFERENT = [
    # A bare formula is read whole, not up to the first number.
    (r"3\sqrt{13}", "3"),
    (r"\left(3, \frac{\pi}{2}\right)", "3"),
    (r"1-\frac{1}{\mathrm{e}}", r"1+\frac{1}{\mathrm{e}}"),
    (r"1-\frac{1}{\mathrm{e}}", "1"),
    # Letters are variables, not units.
    ("2t", "2"),
    ("2ab", "2"),
    (r"\frac{1}{2}ab", r"\frac{1}{2}"),
    # Small numbers are compared relative to their size.
    ("1/2^{99}", "1/2^{98}"),
    ("10^{-20}", "10^{-30}"),
    ("10^{-20}", "0"),
    ("0.0000012", "0.0000014"),
    (r"2.3 \times 10^{-9}", r"2.4 \times 10^{-9}"),
    ("10^{20}+1", "10^{20}"),
    # Several candidates do not earn.
    ("24", "24 or 25"),
    ("24", r"24 \text{ or } 25"),
    ("24", r"24\text{ or 25}"),
    ("24", r"\text{24 or 25}"),
    ("24", "24, 25"),
    ("24", r"\{24, 25\}"),
    ("24", "[24, 25]"),
    ("24", "(24, 25)"),
    ("24", r"\pm 24"),
    ("24", "24 = 25"),
    ("24", "24 is wrong, it is 25"),
    ("24", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24"),
    ("24", "x"),
    ("24", r"x \neq 24"),
    ("24", "x < 25"),
    # Braces carry meaning.
    (r"\frac{1}{23}", r"\frac{12}{3}"),
    ("204_5", "204_6"),
    ("204_5", "204"),
    ("(1, 2)", "(2, 1)"),
    ("(-3, 2)", "[-3, 2]"),
    ("0.5", "1 1/2"),
    ("0", r"\frac{0}{0}"),
    ("2.0001", "2"),
    ("0.333", r"\frac13"),
]


@pytest.mark.parametrize(("gold", "candidate"), EQUAL)
def test_equal_answers_are_correct_both_ways(gold, candidate):
    assert compare_bare(candidate, gold) == "CORRECT"
    assert compare_bare(gold, candidate) == "CORRECT"


@pytest.mark.parametrize(("gold", "candidate"), DIFFERENT)
def test_different_answers_are_not_correct_either_way(gold, candidate):
    assert compare_bare(candidate, gold) != "CORRECT"
    assert compare_bare(gold, candidate) != "CORRECT"


@pytest.mark.parametrize("candidate", ["24 25", r"\frac{1}{2}??", "24)", r"24 \to 25", "...", "="])
def test_what_is_not_understood_as_a_whole_is_unparseable(candidate):
    assert compare_bare(candidate, "24") == "UNPARSEABLE"


@pytest.mark.parametrize("gold", ["x = 5", "y = 2x + 3", "x^2+y^2=1", "2x+4y-3=0", "x > 3"])
@pytest.mark.parametrize("candidate", ["0=0", "x=x", "1=2", "x=y", "0 < 1"])
def test_an_empty_truth_does_not_equal_an_equation(gold, candidate):
    assert compare_bare(candidate, gold) != "CORRECT"


@pytest.mark.parametrize(
    ("gold", "candidate", "is_equal"),
    [
        (r"\frac13", "0.333333", True),
        (r"\frac13", "0.3333", False),
        ("2^{-99}", "2^{-98}", False),
        # They differ by less than 1e-6, but by 14% of their size.
        ("0.0000012", "0.0000014", False),
        ("0.000123456", "0.000123457", True),
    ],
)
def test_numbers_must_agree_relative_to_their_size(gold, candidate, is_equal):
    assert (compare_bare(candidate, gold) == "CORRECT") is is_equal


@settings(max_examples=60, deadline=None)
@given(a=st.integers(-(10**14), 10**14), b=st.integers(-(10**14), 10**14))
def test_plain_integers_are_equal_exactly_if_they_are(a, b):
    assert compare_bare(str(a), str(b)) == ("CORRECT" if a == b else "WRONG")
    assert compare_bare(str(a), str(a)) == "CORRECT"


@settings(max_examples=60, deadline=None)
@given(p=st.integers(-999, 999), q=st.integers(1, 999), r=st.integers(1, 50))
def test_fractions_equal_their_multiples_and_nothing_near(p, q, r):
    fraction = rf"\frac{{{p}}}{{{q}}}"
    assert compare_bare(rf"\frac{{{p * r}}}{{{q * r}}}", fraction) == "CORRECT"
    assert compare_bare(rf"\frac{{{p * r + 1}}}{{{q * r}}}", fraction) == "WRONG"


def test_random_polynomials_equal_their_expansions():
    generator = random.Random(0)
    for _ in range(15):
        a, b, c = (generator.randint(1, 9) for _ in range(3))
        factored = f"({a}x + {b})(x - {c})"
        # (ax + b)(x - c) = a x^2 + (b - ac) x - bc
        middle = b - a * c
        expanded = f"{a}x^2 + ({middle})x - {b * c}"
        assert compare_bare(expanded, factored) == "CORRECT"
        assert compare_bare(f"{a}x^2 + ({middle + 1})x - {b * c}", factored) == "WRONG"


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        (r"$5$.", "5"),
        (r"\[ x^2 \]", "x^2"),
        (r"\boxed{7}", "7"),
        (r"{7}", "7"),
        (r"$\$12$", r"\$12"),
        (r"10{,}000", "10000"),
        ("5\\", "5"),
        (r"\displaystyle 5", "5"),
    ],
)
def test_delimiters_and_punctuation_around_an_answer_go(text, bare):
    assert read(text) == read(bare)


def test_a_formula_is_read_whole_or_not_at_all():
    assert read(r"3\sqrt{13}") is not None
    for text in (r"3\sqrt{13}??", ""):
        with pytest.raises(UnreadError):
            read(text)


def test_prose_is_read_only_where_it_is_allowed():
    sentence = "we get 10 in the end"
    assert compare_bare(sentence, "10") != "CORRECT"
    job = {"operation": "compare_prose", "candidate": sentence, "gold": "10"}
    assert grade(job) == {"verdict": "CORRECT"}
    assert grade({**job, "operation": "compare_last"}) == {"verdict": "CORRECT"}


def test_an_unreadable_gold_answer_is_an_error_even_if_met_literally():
    assert compare_bare("3", r"\frac{1}{") == "ERROR"
    assert compare_bare(r"\frac{1}{", r"\frac{1}{") == "ERROR"


def test_readable_answers_have_content():
    assert grade({"operation": "check", "gold": r"$\frac{1}{2}$"}) == {"readable": True}
    assert grade({"operation": "check", "gold": r"\text{Evelyn}"}) == {"readable": True}
    assert grade({"operation": "check", "gold": "$ $"}) == {"readable": False}
    assert grade({"operation": "check", "gold": r"\frac{1}{"}) == {"readable": False}
