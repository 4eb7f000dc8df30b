"""What later iterations learn from earlier ones, and that it survives a checkpoint."""

import json
import pickle

import pytest

from prefix_rft_rllib import methods
from prefix_rft_rllib.core.prefix_schedules import Rewards
from prefix_rft_rllib.iterations.carried_over import CarriedOver, rewards_of
from prefix_rft_rllib.methods import Method, Stage
from tests.made_groups import plan_of, play, problem

WINDOW_START = 0.75
"""Lower end of the adaptive window at first: 0.95 less its width of 0.2."""


@pytest.fixture
def config(tiny_config):
    return tiny_config.training(
        group_size=4, num_problems_per_iteration=6, num_problems_per_minibatch=2
    )


def feedback_of(name, **settings):
    return CarriedOver(methods.by_name(name, **settings).stage_at(0))


def iterations(config, feedback, method, rewards):
    """Learn from as many iterations as there are rewards of the members."""
    for iteration, earned in enumerate(rewards):
        one = plan_of(config, method, iteration, feedback=feedback)
        feedback.observe(play(one.groups(), earned))
    return feedback


def test_rewards_of_prefix_rollouts_are_means_by_problem_and_those_of_others_a_list(config):
    config.training(num_problems_per_iteration=3, num_problems_per_minibatch=3)
    method = methods.prefix_rft(num_prefix_rollouts=2)
    # Problem 5 is met twice, and problem 9 has no demonstration: its rollouts are all plain.
    problems = [problem(5), problem(9, num_demonstrations=0)]
    groups = plan_of(config, method, problems=problems).groups()
    groups = [g for g in groups if g.problem.problem_id == "p5"][:1] * 2 + [
        g for g in groups if g.problem.problem_id == "p9"
    ][:1]
    first, second, third = (play([group], (0.0,) * 4)[0] for group in map(copy_of, groups))
    play([first], (1.0, 0.0, 0.5, 0.0))
    play([second], (1.0, 1.0, 0.0, 0.25))
    play([third], (1.0, 0.0, 0.0, 0.0))
    rewards = rewards_of([first, second, third])
    assert rewards.prefix == {"p5": (1.0 + 0.0 + 1.0 + 1.0) / 4}
    assert rewards.plain == [0.5, 0.0, 0.0, 0.25, 1.0, 0.0, 0.0, 0.0]


def copy_of(group):
    return pickle.loads(pickle.dumps(group))


@pytest.mark.parametrize(
    # Moves of 0.5 * (0.5 - reward), at most 0.1, and not above 0.75: its upper end is 0.95 there.
    ("reward", "low"),
    [(1.0, 0.65), (0.625, 0.6875), (0.5, 0.75), (0.0, 0.75)],
)
def test_the_window_moves_with_the_rewards_of_the_prefix_rollouts(config, reward, low):
    feedback = feedback_of("prefix_rft_adaptive")
    assert feedback.schedule_state["low"] == WINDOW_START
    iterations(config, feedback, "prefix_rft_adaptive", [(reward, 0.0, 0.0, 0.0)])
    assert feedback.schedule_state["low"] == pytest.approx(low, abs=1e-12)
    assert feedback.schedule_state["plain_reward"] == 0.0


def test_the_window_goes_down_once_plain_rollouts_earn_nearly_the_target(config):
    feedback = feedback_of("prefix_rft_adaptive")
    # A prefix reward below the target would move it up; plain rewards of 0.4 = 0.5 - 0.1 do not.
    iterations(config, feedback, "prefix_rft_adaptive", [(0.25, 0.4, 0.4, 0.4)])
    assert feedback.schedule_state["low"] == pytest.approx(0.65, abs=1e-12)


def test_schedules_of_time_have_no_state(config):
    feedback = feedback_of("prefix_rft")
    iterations(config, feedback, "prefix_rft", [(1.0, 0.0, 0.0, 0.0)])
    assert feedback.get_state() == {"stage": 0, "schedule_state": {}, "failed": []}


def test_problems_that_no_rollout_solved_are_kept_oldest_first(config):
    feedback = feedback_of("relift")
    groups = plan_of(config, "relift").groups()
    names = [group.problem.problem_id for group in groups]
    rewards = {name: (0.0, 0.0, float(i % 2), 0.0) for i, name in enumerate(names)}
    feedback.observe(play(groups, rewards))
    assert feedback.failed == names[::2]


def test_a_problem_that_fails_again_becomes_the_newest_and_stays_once(config):
    feedback = feedback_of("relift")
    groups = play(plan_of(config, "relift").groups(), (0.0,) * 4)
    names = [group.problem.problem_id for group in groups]
    feedback.observe(groups)
    feedback.observe([groups[1], groups[0], groups[1]])
    assert feedback.failed == [*names[2:], names[1], names[0]]
    assert feedback.take_failed(3) == [names[0], names[1], names[5]]
    assert feedback.failed == names[2:5]


def test_a_problem_that_was_solved_later_stays_until_it_is_taken(config):
    feedback = feedback_of("relift")
    groups = plan_of(config, "relift").groups()
    feedback.observe(play(groups, (0.0,) * 4))
    feedback.observe(play(groups[:1], (1.0,) * 4))
    assert groups[0].problem.problem_id == feedback.failed[0]


def test_taking_more_than_wait_takes_nothing(config):
    feedback = feedback_of("relift")
    feedback.observe(play(plan_of(config, "relift").groups()[:2], (0.0,) * 4))
    assert feedback.take_failed(3) == []
    assert len(feedback.failed) == 2
    assert len(feedback.take_failed(2)) == 2
    assert feedback.failed == []


ROUND_TRIPS = {
    "json": lambda state: json.loads(json.dumps(state)),
    "pickle": lambda state: pickle.loads(pickle.dumps(state)),
}


@pytest.mark.parametrize("through", ROUND_TRIPS)
@pytest.mark.parametrize("name", ["prefix_rft_adaptive", "relift", "prefix_rft"])
def test_a_restored_feedback_goes_on_like_the_original(config, name, through):
    # Every second problem is solved from a prefix, the others never.
    by_problem = {f"p{number}": (float(number % 2), 0.0, 0.0, 0.0) for number in range(12)}
    original = iterations(config, feedback_of(name), name, [by_problem] * 4)
    restored = feedback_of(name)
    restored.set_state(ROUND_TRIPS[through](original.get_state()))
    for iteration, earned in enumerate([by_problem, (0.0,) * 4, by_problem], 4):
        plans = [plan_of(config, name, iteration, feedback=f) for f in (original, restored)]
        groups = [one.groups() for one in plans]
        assert groups[0] == groups[1]
        for one, planned in zip(plans, groups, strict=True):
            one.feedback.observe(play(planned, earned))
        assert as_lists(original.get_state()) == as_lists(restored.get_state())
        if name == "prefix_rft_adaptive":
            # Every problem was met twice: windows differ by what it earned.
            assert len({group.planned[0].window_low for group in groups[0]}) > 1


def as_lists(state):
    """JSON turns tuples into lists; the numbers stay exact."""
    return json.loads(json.dumps(state))


def test_a_saved_state_does_not_change_with_the_feedback(config):
    for name in ("prefix_rft_adaptive", "relift"):
        feedback = iterations(config, feedback_of(name), name, [(1.0, 0.0, 0.0, 0.0), (0.0,) * 4])
        state = feedback.get_state()
        before = as_lists(state)
        feedback.take_failed(2)
        iterations(config, feedback, name, [(0.0,) * 4] * 2)
        assert as_lists(state) == before != as_lists(feedback.get_state())
        restored = feedback_of(name)
        restored.set_state(state)
        restored.take_failed(2)
        iterations(config, restored, name, [(0.0,) * 4] * 2)
        assert as_lists(state) == before


def test_the_state_of_another_stage_is_left_out(config):
    relift = methods.relift()
    method = Method(
        name="two", stages=(Stage(method=relift, num_iterations=2), Stage(method=relift))
    )
    first = CarriedOver(method.stage_at(0))
    first.failed = ["p1", "p2"]
    second = CarriedOver(method.stage_at(2))
    second.set_state(first.get_state())
    assert (second.stage, second.failed) == (1, [])
    again = CarriedOver(method.stage_at(1))
    again.set_state(first.get_state())
    assert again.failed == ["p1", "p2"]


def test_the_state_of_another_method_is_left_out(config):
    adaptive = iterations(
        config,
        feedback_of("prefix_rft_adaptive"),
        "prefix_rft_adaptive",
        [(1.0, 0.0, 0.0, 0.0)],
    )
    relift = feedback_of("relift")
    relift.failed = ["p1"]
    for name in ("prefix_rft", "rft", "relift", "prefix_rft_adaptive"):
        for state in (adaptive.get_state(), relift.get_state()):
            feedback = feedback_of(name)
            own = as_lists(feedback.get_state())
            feedback.set_state(state)
            expected = {"prefix_rft_adaptive": adaptive, "relift": relift}.get(name)
            is_own = expected is not None and state == expected.get_state()
            assert as_lists(feedback.get_state()) == (as_lists(state) if is_own else own)


def test_a_restored_window_of_another_width_stays_inside_its_range():
    # What PopulationBasedTraining does when it changes `width`.
    state = feedback_of("prefix_rft_adaptive", width=0.1).get_state()
    assert state["schedule_state"]["low"] == 0.85
    wide = methods.prefix_rft_adaptive(width=0.6)
    feedback = CarriedOver(wide.stage_at(0))
    feedback.set_state(state)
    window = wide.prefix_sampler.fraction.window(1, feedback.schedule_state, None)
    assert (window.low, window.high) == pytest.approx((0.35, 0.95))


def test_an_iteration_without_rollouts_teaches_nothing():
    feedback = feedback_of("prefix_rft_adaptive")
    before = as_lists(feedback.get_state())
    feedback.observe([])
    assert as_lists(feedback.get_state()) == before
    assert rewards_of([]) == Rewards({}, [])
