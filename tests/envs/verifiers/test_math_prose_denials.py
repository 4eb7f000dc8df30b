"""Numbers that running text denies or only bounds are not its answer."""

import pytest

from prefix_rft_rllib.envs.verifiers.math_comparison import compare_last, compare_prose


@pytest.mark.parametrize(
    "text",
    [
        "It is not 5.",
        "So it cannot be $5$.",
        "This isn't equal to 5.",
        "5 is wrong.",
        "The value $5$ is not right.",
        "The answer is at least 5.",
        "So x is less than 5.",
        "It takes 5 or more.",
        "The answer is not 5.",
        "Neither 5.",
    ],
)
def test_a_denied_or_bounded_number_does_not_earn(text):
    assert compare_last(text, "5") != "CORRECT"
    assert compare_prose(text, "5") != "CORRECT"


@pytest.mark.parametrize(
    "text",
    ["It is 5.", "It is not 4, so it is 5.", "There are more than 3, in fact 5.", "So $x = 5$."],
)
def test_a_stated_number_earns_behind_a_denied_one(text):
    assert compare_last(text, "5") == "CORRECT"
