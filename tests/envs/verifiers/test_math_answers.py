"""Finding the box in a response."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.envs.verifiers.math_answers import final_box, has_content, is_plain_integer


@pytest.mark.parametrize(
    ("response", "content"),
    [
        (r"so $\boxed{42}$.", "42"),
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}} is it", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        # The escaped brace opens nothing: the box closes at the one after `\right.`.
        (r"\boxed{\left\{ x \right.} }", r"\left\{ x \right."),
        (r"\boxed {7}", "7"),
        ("\\boxed\n{7}", "7"),
        (r"\fbox{7}", "7"),
        (r"\boxed 5 is the answer", "5"),
        (r"it is $\boxed 12$.", "12"),
        (r"\boxed{2 \boxed{4}}", "4"),
    ],
)
def test_the_content_of_the_last_box_is_found(response, content):
    assert final_box(response) == content


@pytest.mark.parametrize(
    "response",
    [
        "",
        "42",
        r"\boxed",
        r"\boxed{}",
        r"\boxed{   }",
        r"\boxed{\frac{1}{2}",
        r"\boxed{1} but \boxed{2",
        r"\boxedsomething{3}",
        r"{\boxed}",
    ],
)
def test_no_box_or_a_broken_last_box_gives_nothing(response):
    assert final_box(response) is None


def balanced(depth):
    leaf = st.text(alphabet="ab1 +,", min_size=1, max_size=4)
    if depth == 0:
        return leaf
    inner = balanced(depth - 1)
    return st.one_of(leaf, st.builds("{{{}}}".format, inner), st.builds("{}{}".format, leaf, inner))


@settings(max_examples=60, deadline=None)
@given(before=st.text(max_size=20), content=balanced(4), after=st.text(max_size=20))
def test_any_balanced_content_comes_back_unchanged(before, content, after):
    response = before.replace("\\", "") + r"\boxed{" + content + "}" + after.replace("\\", "")
    assert final_box(response) == (content.strip() or None)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="\\boxedf{} 1$\n", max_size=40))
def test_finding_a_box_never_fails(response):
    content = final_box(response)
    assert content is None or content in response


def test_megabytes_of_boxes_and_braces_take_linear_time():
    begin = time.perf_counter()
    assert final_box(r"\boxed{" * 150_000) is None
    assert final_box(r"\boxed{" + "{" * 500_000 + "}" * 500_000 + "}") is not None
    assert final_box(r"\boxed" * 150_000) is None
    assert time.perf_counter() - begin < 10


def test_plain_integers_have_one_spelling():
    assert [text for text in ("0", "-7", "123", "007", "-0", "+1", "1.0", "1e3", "", "٣", "9" * 16)
            if is_plain_integer(text)] == ["0", "-7", "123"]  # fmt: skip


def test_punctuation_alone_is_no_content():
    assert not any(map(has_content, ("", "  ", "$$", "{}", r"\[ \]", "...")))
    assert all(map(has_content, ("0", "x", r"\pi", "∅", "漢")))
