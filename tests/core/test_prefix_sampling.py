import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.core.prefix_sampling import (
    GroupSpec,
    Never,
    PerGroup,
    WholeGroup,
    plan_group,
    prefix_length,
)
from prefix_rft_rllib.core.prefix_schedules import CosineLow, Fixed, Uniform


def make_group(**changes):
    settings = {
        "seed": 3,
        "iteration": 7,
        "group_id": 0,
        "problem_id": "train:12",
        "num_rollouts": 8,
        "demonstration_lengths": (40, 60, 80),
        "answer_cut": lambda index: None,
        "max_response_tokens": 100,
    }
    return GroupSpec(**{**settings, **changes})


@pytest.mark.parametrize(
    ("fraction", "length", "budget", "cut", "expected"),
    [
        (0.5, 10, 100, None, 5),
        (0.59, 10, 100, None, 5),  # floor
        (0.29, 100, 1000, None, 29),  # 0.29 * 100 is 28.999999999999996 in binary
        (0.0, 10, 100, None, 0),
        (0.01, 10, 100, None, 1),  # at least one token when u > 0
        (1.0, 10, 100, None, 9),  # something is left to sample
        (1.0, 10, 10, None, 9),
        (0.9, 10, 5, None, 4),  # one token of the budget is left
        (0.9, 10, 100, 3, 3),
        (0.9, 10, 100, 20, 9),
        (0.01, 10, 100, 0, 0),  # the answer comes first: no prefix, not one token of it
        (0.5, 1, 100, None, 0),  # a demonstration of one token
        (0.5, 10, 1, None, 0),  # a budget of one token
    ],
)
def test_prefix_length_obeys_every_limit(fraction, length, budget, cut, expected):
    assert prefix_length(fraction, length, budget, cut) == expected


@given(st.floats(0, 1), st.integers(1, 200), st.integers(1, 200), st.none() | st.integers(0, 200))
def test_prefix_length_always_leaves_a_token_to_sample(fraction, length, budget, cut):
    tokens = prefix_length(fraction, length, budget, cut)
    assert 0 <= tokens <= min(length - 1, budget - 1, cut if cut is not None else length)
    assert tokens <= max(1, fraction * length + 1e-9)
    if fraction == 0:
        assert tokens == 0


def test_a_percentage_is_no_prefix_fraction():
    with pytest.raises(ValueError, match="`fraction` must be in"):
        prefix_length(20, 10, 100, None)


def test_the_first_members_get_the_prefixes():
    plans = plan_group(PerGroup(2, Fixed(0.5)), make_group())
    assert [plan.has_prefix for plan in plans] == [True] * 2 + [False] * 6
    assert [plan.member for plan in plans] == list(range(8))
    for plan in plans[:2]:
        length = (40, 60, 80)[plan.demonstration_index]
        assert plan.num_prefix_tokens == plan.drawn_prefix_tokens == length // 2
        assert plan.prefix_fraction == 0.5
        assert plan.reset_options == {
            "problem_id": "train:12",
            "demonstration_index": plan.demonstration_index,
            "num_prefix_tokens": length // 2,
        }
    for plan in plans[2:]:
        assert (plan.prefix_fraction, plan.demonstration_index, plan.was_cut) == (0.0, 0, False)


def test_a_whole_group_shares_one_prefix_but_not_its_seeds():
    plans = plan_group(WholeGroup(Uniform(0.05, 0.95)), make_group())
    shared = {(plan.demonstration_index, plan.num_prefix_tokens) for plan in plans}
    assert len(shared) == 1
    assert shared.pop()[1] > 0
    assert len({plan.seed for plan in plans}) == 8


def test_the_plan_is_a_function_of_seed_iteration_problem_and_member_only():
    sampler = PerGroup(2, Uniform(0.05, 0.95))
    plans = plan_group(sampler, make_group())
    assert plans == plan_group(sampler, make_group())
    elsewhere = plan_group(sampler, make_group(group_id=5, num_rollouts=3))
    assert elsewhere == [dataclasses.replace(plan, group_id=5) for plan in plans[:3]]
    for change in ({"seed": 4}, {"iteration": 8}, {"problem_id": "train:13"}, {"occurrence": 1}):
        others = plan_group(sampler, make_group(**change))
        assert not {plan.seed for plan in plans} & {plan.seed for plan in others}
        assert others[0].prefix_fraction != plans[0].prefix_fraction


def test_a_fraction_of_zero_plans_exactly_what_never_plans():
    plain = plan_group(Never(), make_group())
    assert plan_group(PerGroup(3, Fixed(0.0)), make_group()) == plain
    assert plan_group(WholeGroup(Fixed(0.0)), make_group()) == plain
    assert not any(plan.has_prefix for plan in plain)


def test_a_problem_without_demonstrations_gets_plain_rollouts():
    group = make_group(demonstration_lengths=())
    assert plan_group(PerGroup(1, Fixed(0.5)), group) == plan_group(Never(), group)


def test_the_cut_is_asked_for_drawn_demonstrations_only_and_is_recorded():
    asked = []

    def answer_cut(index):
        asked.append(index)
        return 10

    plans = plan_group(PerGroup(1, Fixed(0.5)), make_group(answer_cut=answer_cut))
    assert asked == [plans[0].demonstration_index]
    assert plans[0].was_cut
    assert plans[0].num_prefix_tokens == 10
    assert plans[0].drawn_prefix_tokens in (20, 30, 40)


@pytest.mark.parametrize(("cut", "was_cut"), [(20, False), (19, True), (0, True), (None, False)])
def test_a_prefix_was_cut_only_if_the_cut_shortened_it(cut, was_cut):
    group = make_group(demonstration_lengths=(40,), answer_cut=lambda index: cut)
    plan = plan_group(PerGroup(1, Fixed(0.5)), group)[0]
    assert plan.was_cut is was_cut
    assert plan.drawn_prefix_tokens == 20


def test_drawn_fractions_fill_the_window_of_their_iteration_evenly():
    sampler = PerGroup(1, CosineLow())
    plans = [
        plan_group(sampler, make_group(iteration=250, problem_id=f"p{index}", num_rollouts=1))[0]
        for index in range(3000)
    ]
    fractions = np.sort([plan.prefix_fraction for plan in plans])
    assert 0.5 <= fractions[0] <= fractions[-1] <= 0.95
    # Kolmogorov-Smirnov against the uniform law on [0.5, 0.95], 0.999 quantile.
    expected = 0.5 + 0.45 * (np.arange(3000) + 0.5) / 3000
    assert np.abs(fractions - expected).max() / 0.45 < 1.95 / np.sqrt(3000)
    counts = np.bincount([plan.demonstration_index for plan in plans], minlength=3)
    # Chi-square with 2 degrees of freedom, 0.999 quantile.
    assert ((counts - 1000) ** 2 / 1000).sum() < 13.8
    # Length and choice of demonstration are independent draws.
    by_index = [
        np.mean([p.prefix_fraction for p in plans if p.demonstration_index == index])
        for index in range(3)
    ]
    assert np.ptp(by_index) < 0.03  # 4.9 standard errors of a difference of two means


def test_more_prefixes_than_rollouts_are_refused():
    with pytest.raises(ValueError, match=r"`num_prefix_rollouts` \(9\) must not be above"):
        plan_group(PerGroup(9, Fixed(0.5)), make_group())
    with pytest.raises(ValueError, match="`num_prefix_rollouts` must be a whole number"):
        PerGroup(0)
