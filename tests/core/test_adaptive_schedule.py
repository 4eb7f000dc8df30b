"""The window that follows the rewards: its bounds, its memory, and that it holds its target."""

import copy
import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.core.adaptive_schedule import (
    HIGHEST,
    LOWEST,
    MAX_OFFSET,
    Adaptive,
)
from prefix_rft_rllib.core.prefix_sampling import GroupSpec, PerGroup, plan_group
from prefix_rft_rllib.core.prefix_schedules import Rewards, UniformWindow

rewards_in_0_1 = st.floats(0, 1)
any_rewards = st.builds(
    Rewards,
    prefix=st.dictionaries(st.sampled_from("abcd"), st.floats(-5, 5), max_size=4),
    plain=st.lists(st.floats(-5, 5), max_size=4),
)
any_schedule = st.builds(
    Adaptive,
    target=rewards_in_0_1,
    width=st.floats(0, 0.9),
    gain=st.floats(0.01, 10),
    max_step=st.floats(0.001, 1),
    rest_margin=rewards_in_0_1,
)


def after(schedule, *rewards, state=None):
    """The state after some iterations."""
    state = schedule.initial_state() if state is None else state
    for iteration_rewards in rewards:
        state = schedule.next_state(state, iteration_rewards)
    return state


def low_of(schedule, state, problem_id=None):
    return schedule.window(0, state, problem_id).low


def test_the_first_moves_by_hand():
    # The window starts at [0.75, 0.95]. All prefix rollouts succeed: 0.5 * (0.5 - 1) = -0.25, at
    # most -0.1: 0.65. Mean 0.6: 0.5 * -0.1 = -0.05: 0.60. Mean 0.25: 0.5 * 0.25 = 0.125, at most
    # 0.1: 0.70. Mean 0.5: it stays.
    schedule = Adaptive()
    state = schedule.initial_state()
    assert schedule.window(0, state, None) == UniformWindow(0.75, 0.95)
    for rewards, low in (
        ({"a": 1.0, "b": 1.0}, 0.65),
        ({"c": 0.6}, 0.60),
        ({"d": 0.5, "e": 0.0}, 0.70),
        ({"f": 0.25, "g": 0.75}, 0.70),
    ):
        state = schedule.next_state(state, Rewards(rewards, [0.0]))
        window = schedule.window(17, state, None)
        assert (window.low, window.high) == pytest.approx((low, low + 0.2), abs=1e-12)


def test_an_iteration_without_prefix_rollouts_moves_nothing_but_the_plain_mean():
    schedule = Adaptive()
    state = after(schedule, Rewards({}, [0.25, 0.75]), Rewards({}, []))
    # The first mean is taken as it is, 0.5; no plain rollouts leave it.
    assert state == {**schedule.initial_state(), "plain_reward": 0.5}
    # 0.8 * 0.5 + 0.2 * 1.
    assert after(schedule, Rewards({}, [1.0]), state=state)["plain_reward"] == pytest.approx(0.6)


@settings(max_examples=200)
@given(any_schedule, st.lists(any_rewards, max_size=12))
def test_both_ends_stay_in_their_range_whatever_the_rewards(schedule, iterations):
    state = schedule.initial_state()
    for iteration, rewards in enumerate([Rewards({}, []), *iterations]):
        state = schedule.next_state(state, rewards)
        for problem_id in (None, "a", "b", "new"):
            window = schedule.window(iteration, state, problem_id)
            assert LOWEST <= window.low <= window.high <= HIGHEST
            assert window.high - window.low == pytest.approx(schedule.width, abs=1e-12)


@settings(max_examples=200)
@given(any_schedule, st.lists(any_rewards, max_size=12))
def test_no_step_is_longer_than_the_largest(schedule, iterations):
    state = schedule.initial_state()
    for rewards in iterations:
        before, state = state, schedule.next_state(state, rewards)
        assert abs(low_of(schedule, state) - low_of(schedule, before)) <= schedule.max_step + 1e-12


@settings(max_examples=100)
@given(any_schedule, st.lists(any_rewards, max_size=8), any_rewards)
def test_states_are_plain_data_and_are_not_modified(schedule, iterations, rewards):
    state = after(schedule, *iterations)
    kept = copy.deepcopy(state)
    following = schedule.next_state(state, rewards)
    assert state == kept
    # Through a checkpoint as JSON: the same numbers, and the same future.
    loaded = json.loads(json.dumps(state))
    assert loaded == state
    assert schedule.next_state(loaded, rewards) == following
    for problem_id in (None, "a", "b"):
        assert schedule.window(0, loaded, problem_id) == schedule.window(0, state, problem_id)
    following["problems"].clear()
    assert state == kept


@given(st.lists(any_rewards, max_size=8))
def test_equal_rewards_in_another_order_make_the_same_state(iterations):
    turned = [Rewards(dict(reversed(r.prefix.items())), r.plain[::-1]) for r in iterations]
    assert after(Adaptive(), *iterations) == after(Adaptive(), *turned)


def test_offsets_by_hand():
    # Twice "hard" earns 0 and "easy" 1, mean 1/2: distances 2 * +-0.5 = +-1, over 2 meetings and 2
    # imagined ones: +-1/4; times the gain of 1/2: +-0.125.
    schedule = Adaptive()
    met = Rewards({"hard": 0.0, "easy": 1.0}, [0.0])
    once = after(schedule, met)
    assert low_of(schedule, once) == pytest.approx(0.75)
    for problem_id in ("hard", "easy", "new"):
        assert schedule.window(1, once, problem_id) == schedule.window(1, once, None)
    twice = {**after(schedule, met, met), "low": 0.4}
    assert low_of(schedule, twice, "hard") == pytest.approx(0.525)
    assert low_of(schedule, twice, "easy") == pytest.approx(0.275)
    assert low_of(schedule, twice, "new") == low_of(schedule, twice) == 0.4
    # After many meetings the offset is at its bound, 0.2, in both directions.
    often = {**after(schedule, *[met] * 50), "low": 0.4}
    assert low_of(schedule, often, "hard") == pytest.approx(0.4 + MAX_OFFSET)
    assert low_of(schedule, often, "easy") == pytest.approx(0.4 - MAX_OFFSET)


@given(st.lists(st.tuples(rewards_in_0_1, rewards_in_0_1), min_size=1, max_size=8))
def test_offsets_begin_at_the_second_meeting_and_point_to_the_failed_problem(meetings):
    schedule = Adaptive()
    state = after(schedule, *(Rewards({"a": a, "b": b}, []) for a, b in meetings))
    state = {**state, "low": 0.4}
    offset_a = low_of(schedule, state, "a") - 0.4
    offset_b = low_of(schedule, state, "b") - 0.4
    if len(meetings) < 2:
        assert offset_a == offset_b == 0
        return
    assert offset_a == pytest.approx(-offset_b, abs=1e-12)
    difference = sum(b - a for a, b in meetings)
    if abs(difference) > 1e-9:
        assert math.copysign(1, offset_a) == math.copysign(1, difference)


def test_a_problem_that_does_as_the_others_has_no_offset():
    schedule = Adaptive()
    state = after(schedule, *[Rewards({"a": r, "b": r}, []) for r in (0.0, 1.0, 0.3)])
    assert low_of(schedule, state, "a") == low_of(schedule, state)


def test_the_offset_moves_the_plan_of_that_problem_alone():
    schedule = Adaptive()
    met = Rewards({"hard": 0.0, "easy": 1.0}, [0.0])
    state = {**after(schedule, *[met] * 3), "low": 0.4}

    def plan(problem_id):
        group = GroupSpec(
            seed=0,
            iteration=3,
            group_id=0,
            problem_id=problem_id,
            num_rollouts=2,
            demonstration_lengths=(1000,),
            answer_cut=lambda index: None,
            max_response_tokens=2000,
            schedule_state=state,
        )
        return plan_group(PerGroup(1, schedule), group)[0]

    for problem_id in ("hard", "easy", "new"):
        rollout = plan(problem_id)
        window = schedule.window(3, state, problem_id)
        assert (rollout.window_low, rollout.window_high) == (window.low, window.high)
        assert window.low <= rollout.prefix_fraction <= window.high
    assert plan("easy").window_low < plan("new").window_low < plan("hard").window_low


def test_it_rests_at_the_lower_end_once_plain_rollouts_earn_nearly_the_target():
    # Prefix rollouts fail, which would move the window up; plain ones earn 0.45 > 0.5 - 0.1.
    schedule = Adaptive()
    resting = [Rewards({"a": 0.0}, [0.45])] * 20
    lows = []
    state = schedule.initial_state()
    for rewards in resting:
        state = schedule.next_state(state, rewards)
        lows.append(low_of(schedule, state))
    # 0.75, down by 0.1 each time, to 0.05.
    assert lows[:7] == pytest.approx([0.65, 0.55, 0.45, 0.35, 0.25, 0.15, 0.05])
    assert set(lows[7:]) == {LOWEST}
    # Forgetting takes some iterations, then it moves up again.
    state = after(schedule, *[Rewards({"a": 0.0}, [0.0])] * 5, state=state)
    assert low_of(schedule, state) > LOWEST


def simulate(schedule, success, *, seed, num_iterations=260, num_problems=None):
    """Mean rewards and lower ends: 16 prefix rollouts, 112 plain ones per iteration.

    Args:
        schedule: The schedule.
        success: Probability of a reward of 1, given prefix share, iteration and problem.
        seed: Of the rollouts.
        num_iterations: Iterations.
        num_problems: Problems to meet again and again; None for new ones always.
    """
    generator = random.Random(seed)
    state = schedule.initial_state()
    means, lows = [], []
    for iteration in range(num_iterations):
        start = iteration * 16
        numbers = range(start, start + 16)
        if num_problems is not None:
            numbers = generator.sample(range(num_problems), 16)
        prefix = {}
        for number in numbers:
            window = schedule.window(iteration, state, str(number))
            share, _ = window.prefix(generator.random(), 1000, None)
            prefix[str(number)] = float(generator.random() < success(share, iteration, number))
        plain = [
            float(generator.random() < success(0.0, iteration, number))
            for number in numbers
            for _ in range(7)
        ]
        means.append(sum(prefix.values()) / 16)
        lows.append(state["low"])
        state = schedule.next_state(state, Rewards(prefix, plain))
    return means, lows


def logistic(middle, slope=12.0):
    """Success as a function of the prefix share: 1/2 at `middle`."""
    return lambda share, iteration, number: 1 / (1 + math.exp(-slope * (share - middle)))


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("slope", [8, 15, 30])
@pytest.mark.parametrize("middle", [0.35, 0.5, 0.65, 0.8])
def test_on_a_success_curve_the_mean_reward_is_held_at_the_target(middle, slope, seed):
    means, _ = simulate(Adaptive(), logistic(middle, slope), seed=seed)
    # 200 means of 16 Bernoulli draws: a standard error of at most 0.5 / sqrt(3200) = 0.009.
    assert abs(mean(means[60:]) - 0.5) <= 0.05


@pytest.mark.parametrize("target", [0.3, 0.4, 0.6, 0.7])
@pytest.mark.parametrize("seed", range(3))
def test_other_targets_are_held_too(target, seed):
    means, _ = simulate(Adaptive(target=target), logistic(0.5), seed=seed)
    assert abs(mean(means[60:]) - target) <= 0.05


@pytest.mark.parametrize("seed", range(4))
def test_a_policy_that_improves_slowly_is_followed(seed):
    # The share that half of the rollouts need falls from 0.8 to 0.4 over 200 iterations.
    def success(share, iteration, number):
        return logistic(0.8 - 0.4 * iteration / 200)(share, iteration, number)

    means, lows = simulate(Adaptive(), success, seed=seed, num_iterations=200)
    for start in (50, 100, 150):
        assert abs(mean(means[start : start + 50]) - 0.5) <= 0.05
    # The window came down with it: its middle from about 0.8 to about 0.4.
    assert mean(lows[30:50]) + 0.1 == pytest.approx(0.72, abs=0.05)
    assert mean(lows[180:]) + 0.1 == pytest.approx(0.42, abs=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_with_problems_of_two_kinds_each_gets_a_window_of_its_own(seed):
    # 24 easy problems need a share of 0.4, 24 hard ones 0.6.
    def success(share, iteration, number):
        return logistic(0.4 if number % 2 else 0.6, 15)(share, iteration, number)

    schedule = Adaptive()
    means, _ = simulate(schedule, success, seed=seed, num_problems=48)
    assert abs(mean(means[60:]) - 0.5) <= 0.05


@pytest.mark.parametrize("seed", range(4))
def test_a_solved_task_leaves_the_window_at_rest(seed):
    # Without a prefix 60% succeed.
    means, lows = simulate(Adaptive(), logistic(-0.05, 8), seed=seed)
    assert set(lows[20:]) == {LOWEST}
    assert mean(means[20:]) > 0.6


def test_negative_control_a_window_that_does_not_move_misses_the_target():
    class _Deaf(Adaptive):
        def next_state(self, state, rewards):
            return dict(state)

    means, _ = simulate(_Deaf(), logistic(0.5), seed=0)
    assert abs(mean(means[60:]) - 0.5) > 0.3


def test_negative_control_the_wrong_sign_misses_the_target():
    class _Reversed(Adaptive):
        def next_state(self, state, rewards):
            wrong = {name: 2 * self.target - reward for name, reward in rewards.prefix.items()}
            return super().next_state(state, Rewards(wrong, rewards.plain))

    means, _ = simulate(_Reversed(), logistic(0.5), seed=0)
    assert abs(mean(means[60:]) - 0.5) > 0.3


def test_the_whole_range_is_a_window_that_never_moves():
    schedule = Adaptive(width=0.9)
    state = after(schedule, Rewards({"a": 1.0}, [0.0]), Rewards({"a": 0.0}, [0.0]))
    assert schedule.window(0, state, None) == UniformWindow(LOWEST, HIGHEST)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"target": 50}, r"`target` must be in \[0, 1\], got 50"),
        ({"width": 0.95}, r"`width` \(0\.95\) must be at most 0\.9"),
        ({"width": -0.1}, "`width` must be in"),
        ({"gain": 0.0}, r"`gain` must be a finite number above 0, got 0\.0\. .* Try 0\.5"),
        ({"max_step": 0.0}, r"`max_step` must be in \(0, 1\], got 0\.0\. .* Try 0\.1"),
        ({"max_step": 10}, "`max_step` must be in"),
        ({"rest_margin": 1.5}, "`rest_margin` must be in"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Adaptive(**setting)
