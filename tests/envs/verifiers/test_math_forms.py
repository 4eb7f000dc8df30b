"""Answers in the forms that people write; graded in this process, without workers."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.envs.verifiers.math_answers import boxed_answer, final_box
from prefix_rft_rllib.envs.verifiers.math_comparison import compare_bare, grade
from prefix_rft_rllib.envs.verifiers.math_golds import is_readable
from prefix_rft_rllib.envs.verifiers.math_prose import last_statement
from prefix_rft_rllib.envs.verifiers.math_reading import read
from prefix_rft_rllib.envs.verifiers.math_tokens import UnreadError
from tests.envs.verifiers.math_equal_forms import EQUAL, ONE_WAY
from tests.envs.verifiers.math_other_forms import DIFFERENT, NOT_ONE_WAY, UNREAD

FIELD_CASES = Path(__file__).resolve().parents[4] / "shared" / "data" / "field_math_cases.jsonl"


def both_ways(pairs):
    return [(compare_bare(b, a), a, b) for a, b in pairs] + [
        (compare_bare(a, b), b, a) for a, b in pairs
    ]


@pytest.mark.parametrize("kind", EQUAL)
def test_forms_of_one_answer_earn_both_ways(kind):
    assert [case for case in both_ways(EQUAL[kind]) if case[0] != "CORRECT"] == []


@pytest.mark.parametrize("kind", DIFFERENT)
def test_other_answers_earn_neither_way(kind):
    assert [case for case in both_ways(DIFFERENT[kind]) if case[0] == "CORRECT"] == []


def test_some_forms_earn_against_the_gold_answer_only():
    assert [pair for pair in ONE_WAY if compare_bare(pair[1], pair[0]) != "CORRECT"] == []
    assert [pair for pair in NOT_ONE_WAY if compare_bare(pair[1], pair[0]) == "CORRECT"] == []


@pytest.mark.parametrize("text", UNREAD)
def test_what_is_not_understood_earns_nothing_and_grades_nothing(text):
    assert compare_bare(text, "24") == "UNPARSEABLE"
    assert compare_bare(text, text) == "ERROR"
    assert not is_readable(text)


@pytest.mark.skipif(not FIELD_CASES.is_file(), reason=f"needs the field cases in {FIELD_CASES}")
def test_every_field_case_gets_what_it_is_worth():
    rows = [json.loads(line) for line in FIELD_CASES.read_text("utf-8").splitlines()]
    wrong = [
        row["id"]
        for row in rows
        if (compare_bare(boxed_answer(row["response"]), row["gold"]) == "CORRECT")
        != row["expected"]
    ]
    assert len(rows) >= 38
    assert wrong == []


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"So the number is $\boxed{1011_2}$ in base two.", "1011_2"),
        ("48/2 = 24, and 48+24 = 72.\n#### 72", "72"),
        (r"<think>\boxed{3}</think><answer>$\frac12$</answer>", r"\frac{1}{2}"),
        (r"We add both sides and find that the final answer is $\frac{3}{4}$.", r"\frac34"),
    ],
)
def test_a_gold_solution_is_read_where_it_marks_its_answer(gold, answer):
    assert compare_bare(answer, gold) == "CORRECT"
    assert compare_bare("3", gold) == "WRONG"


def test_a_gold_solution_without_a_marked_answer_grades_nothing():
    solution = (
        "Each of the four friends gets the same share of the twelve apples on the table here. "
        "They divide them among themselves, so that each of them has 3 of them in the end."
    )
    assert compare_bare("3", solution) == "ERROR"
    assert grade({"operation": "check", "gold": solution}) == {"readable": False}


@pytest.mark.parametrize(
    ("response", "content"),
    [
        (r"It is $\boxed{5}$. I put it into \boxed as you asked.", "5"),
        (r"It is $\boxed{5}$. I put it into \boxed{} as you asked.", "5"),
        (r"It is $\boxed{5}$. The form is \boxed{...}.", "5"),
        (r"$\boxed{2}, \boxed{3}$", "2, 3"),
        (r"$\boxed{2}$ or $\boxed{3}$", r"2\text{ or }3"),
        (r"\boxed{2} is wrong. \boxed{3}", "3"),
        (r"\framebox{294}", "294"),
    ],
)
def test_a_box_that_is_only_mentioned_is_none_and_boxes_side_by_side_are_one(response, content):
    assert final_box(response) == content


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>so</think> <answer> 5 </answer>", "5"),
        (r"<answer>\boxed{5}</answer>", "5"),
        (r"\boxed{4} <answer>5</answer>", "5"),
        (r"<answer>5</answer> \boxed{4}", "4"),
        ("<answer>4</answer> <answer>5</answer>", "5"),
        ("<answer>5", None),
        ("<answer></answer>", None),
        (r"<answer>5</answer> \boxed{4", None),
    ],
)
def test_answer_tags_mark_an_answer_too(response, answer):
    assert boxed_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "statement"),
    [
        ("the answer is 42.", "42"),
        ("so we have 3 + 4 = 7 apples", "3 + 4 = 7 apples"),
        ("he has 5 million dollars", "5 million dollars"),
        (r"it is $\frac{1}{2}$ and not more", r"\frac{1}{2}"),
        ("#### 1,234", "1,234"),
        ("nothing here", None),
    ],
)
def test_running_text_states_an_answer_that_is_read_whole(response, statement):
    found = last_statement(response)
    assert (found and found.text.strip()) == statement


@pytest.mark.parametrize("formula", [r"√24}", r"\int_0^1 24 dx", r"\foo{24}", "24}", r"\log_{24"])
def test_no_number_comes_out_of_a_formula_in_running_text(formula):
    job = {"operation": "compare_last", "gold": "24", "candidate": f"So it is {formula}"}
    assert grade(job) == {"verdict": "UNPARSEABLE"}


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=r"\frac{}12^_()[]$|,.;:=<>+-*/!%&abxe \pmod", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        read(text)
    except UnreadError:
        return
    assert compare_bare(text, text) in ("CORRECT", "ERROR")


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**12))
def test_whole_numbers_in_groups_are_one_number(number):
    for separator in (",", r"\,", "{,}", r",\!", " "):
        written = f"{number:,}".replace(",", separator)
        assert compare_bare(written, str(number)) == "CORRECT"


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 99),
    st.text("0123456789", max_size=4),
    st.text("0123456789", min_size=1, max_size=6),
)
def test_a_repeating_decimal_is_its_fraction(whole, before, period):
    below = (10 ** len(period) - 1) * 10 ** len(before)
    above = int(f"{whole}{before}{period}") - int(f"{whole}{before}")
    fraction = rf"\frac{{{above}}}{{{below}}}"
    assert compare_bare(rf"{whole}.{before}\overline{{{period}}}", fraction) == "CORRECT"
    near = rf"\frac{{{above + 1}}}{{{below}}}"
    assert compare_bare(rf"{whole}.{before}\overline{{{period}}}", near) == "WRONG"


@pytest.mark.parametrize(
    "text",
    [
        "(" * 9_000,
        "x" * 9_000,
        "1," * 4_000 + "1",
        r"\frac{" * 1_500,
        "-" * 9_000 + "1",
        "1+" * 4_000 + "1",
        "{" * 4_900 + "1" + "}" * 4_900,
        "100 " * 2_400,
        "(A) " * 2_000,
        "k (k>0)" * 1_000,
    ],
)
def test_long_hostile_answers_are_read_or_refused_in_time(text):
    begin = time.perf_counter()
    assert compare_bare(text, "24") in ("WRONG", "UNPARSEABLE")
    assert time.perf_counter() - begin < 10
