"""The plan of an iteration, for every method: a pure function of seed, iteration and feedback."""

from collections import Counter

import pytest

from prefix_rft_rllib import methods
from prefix_rft_rllib.iterations.carried_over import CarriedOver
from prefix_rft_rllib.methods import METHODS, Method, Stage
from tests.made_groups import PROBLEMS, MadeFacts, facts, plan_of, play, problem

PREFIX_ROLLOUTS = {
    "uft": 4,
    "dr_po": 4,
    **dict.fromkeys(
        (
            "prefix_rft",
            "prefix_rft_adaptive",
            "random_prefix",
            "bottom_entropy",
            "freeze_prefix",
            "update_all",
            "static_prefix_weight",
            "uniform_schedule",
        ),
        1,
    ),
}
"""Rollouts of a group of 4 that start from a prefix, of methods that have any."""
NUM_ROLLOUTS = {"sft": 0, "sft_rft": 0, "dft": 0, "trsft": 0, "psft": 0, "luffy": 3}
"""Rollouts of a group of 4 in iteration 0, where it is not 4."""
DEMONSTRATION_ROWS = ("luffy", "rl_with_sft_loss", "chord")
DEMONSTRATION_ROWS += tuple(name for name, count in NUM_ROLLOUTS.items() if count == 0)


@pytest.fixture
def config(tiny_config):
    return tiny_config.training(
        group_size=4, num_problems_per_iteration=6, num_problems_per_minibatch=2
    )


def plan(config, method="prefix_rft", iteration=0, **changes):
    return plan_of(config, method, iteration, **changes).groups()


def ids_of(groups):
    return [group.problem.problem_id for group in groups]


def seeds_of(groups):
    return {rollout.seed for group in groups for rollout in group.planned}


@pytest.mark.parametrize("name", METHODS)
def test_every_methods_plan_is_a_function_of_seed_and_iteration(config, name):
    expected = {iteration: plan(config, name, iteration) for iteration in (0, 1, 7)}
    for iteration in (7, 0, 1):
        assert plan(config, name, iteration) == expected[iteration]
        one = plan_of(config, name, iteration)
        assert one.groups() == one.groups() == expected[iteration]
    assert ids_of(expected[0]) != ids_of(expected[1])
    assert not seeds_of(expected[0]) & seeds_of(expected[1])


@pytest.mark.parametrize("name", METHODS)
def test_every_methods_groups_have_the_rollouts_and_rows_of_its_definition(config, name):
    for group in plan(config, name):
        assert len(group.planned) == NUM_ROLLOUTS.get(name, 4)
        assert [rollout.member for rollout in group.planned] == list(range(len(group.planned)))
        drawn = [rollout for rollout in group.planned if rollout.window_high is not None]
        # UFT may draw 0 chunks, which is a plain rollout.
        assert len(drawn) in ({0, 4} if name == "uft" else {PREFIX_ROLLOUTS.get(name, 0)})
        assert group.demonstration_indices == ([0] if name in DEMONSTRATION_ROWS else [])
        assert group.demonstration_rewards == ([1.0] if name == "luffy" else [])


def test_another_seed_gives_another_plan(config):
    other_seed = config.copy(copy_frozen=False).debugging(seed=1)
    assert ids_of(plan(other_seed)) != ids_of(plan(config))
    assert not seeds_of(plan(other_seed)) & seeds_of(plan(config))


def test_every_problem_is_met_once_per_epoch(config):
    met = [name for iteration in (0, 1) for name in ids_of(plan(config, iteration=iteration))]
    assert sorted(met) == sorted(p.problem_id for p in PROBLEMS)


def test_the_first_member_of_every_group_starts_from_a_prefix(config):
    groups = plan(config)
    assert [group.group_id for group in groups] == list(range(6))
    for group in groups:
        assert {rollout.problem_id for rollout in group.planned} == {group.problem.problem_id}
        assert {rollout.group_id for rollout in group.planned} == {group.group_id}
        # Iteration 0: u is 0.95, so of n tokens floor(0.95 n), and at least one is left to sample.
        length = len(group.problem.demonstration_ids[0])
        expected = [min(max(1, int(0.95 * length)), length - 1), 0, 0, 0]
        assert [rollout.num_prefix_tokens for rollout in group.planned] == expected
        assert (group.planned[0].window_low, group.planned[0].window_high) == (0.95, 0.95)
        assert group.planned[1].window_low is group.planned[1].window_high is None


def test_a_prefix_ends_before_the_answer_of_its_own_demonstration(config):
    cuts = {p.problem_id: number % 3 for number, p in enumerate(PROBLEMS)}
    groups = plan(config, facts=facts(cut=lambda problem_id, index: cuts[problem_id]))
    for group in groups:
        assert group.planned[0].num_prefix_tokens <= cuts[group.problem.problem_id]


def test_a_problem_met_twice_in_an_iteration_has_two_different_plans(config):
    config.training(num_problems_per_iteration=4, num_problems_per_minibatch=4)
    groups = plan(config, problems=[problem(9)])
    assert len(seeds_of(groups)) == 16


def test_luffy_puts_one_demonstration_in_the_place_of_one_rollout(config):
    problems = [problem(number, num_demonstrations=number % 3) for number in range(12)]
    rewards = {"p2": 0.0, "p5": 0.25}
    groups = [
        group
        for iteration in (0, 1)
        for group in plan(
            config, "luffy", iteration, problems=problems, facts=facts(rewards=rewards)
        )
    ]
    assert len(groups) == 12
    for group in groups:
        has_one = bool(group.problem.demonstration_ids)
        # Without a demonstration all four members are rollouts.
        assert len(group.planned) == (3 if has_one else 4)
        assert len(group.demonstration_indices) == len(group.demonstration_rewards) == has_one
        if has_one:
            assert group.demonstration_indices[0] in range(len(group.problem.demonstration_ids))
            expected = rewards.get(group.problem.problem_id, 1.0)
            assert group.demonstration_rewards == [expected]
    second = [g.demonstration_indices for g in groups if len(g.problem.demonstration_ids) == 2]
    assert {index for (index,) in second} == {0, 1}


def test_uft_gives_a_whole_group_the_same_whole_solution_steps(config):
    problems = [problem(number, num_demonstrations=2) for number in range(20, 32)]
    groups = [
        group
        for iteration in range(4)
        for group in plan(config, "uft", iteration, problems=problems, facts=facts(step_length=4))
    ]
    shares = []
    for group in groups:
        (drawn,) = {(r.demonstration_index, r.num_prefix_tokens) for r in group.planned}
        assert len(group.planned) == 4
        length = len(group.problem.demonstration_ids[drawn[0]])
        # Steps of 4 tokens end at 4, 8, ...; at least one token is left to sample.
        assert drawn[1] % 4 == 0 or drawn[1] == length - 1
        assert len({rollout.seed for rollout in group.planned}) == 4
        shares.append(drawn[1] / length)
    # p is 0.95 of at most 5 chunks: nearly everything is given, and not always the same.
    assert sum(shares) / len(shares) > 0.8
    assert len(set(shares)) > 3


def test_uft_gives_nothing_after_its_schedule(config):
    uft = methods.uft(num_schedule_iterations=2)
    assert all(r.num_prefix_tokens for g in plan(config, uft, 0) for r in g.planned if g.group_id)
    assert not any(r.has_prefix for g in plan(config, uft, 2) for r in g.planned)


TWO_STAGES = Method(
    name="two_stages",
    stages=(
        Stage(method=methods.sft(), num_iterations=3),
        Stage(method=methods.prefix_rft(num_schedule_iterations=4)),
    ),
)


@pytest.mark.parametrize(
    # 0.05 + 0.9 * (1 + cos(pi t / 4)) / 2 for t = iteration - 3: 0.95, at half way 0.5, 0.05.
    ("iteration", "low"),
    [(3, 0.95), (5, 0.5), (7, 0.05), (20, 0.05)],
)
def test_schedules_of_a_stage_count_from_its_first_iteration(config, iteration, low):
    one = plan_of(config, TWO_STAGES, iteration)
    assert one.window is not None
    assert one.window.low == pytest.approx(low, abs=1e-12)
    prefix_rollouts = [group.planned[0] for group in one.groups()]
    assert [rollout.window_low for rollout in prefix_rollouts] == pytest.approx(
        [low] * 6, abs=1e-12
    )


def test_problems_and_draws_go_by_the_iteration_of_the_run_in_every_stage(config):
    plain = methods.prefix_rft(num_schedule_iterations=4)
    assert ids_of(plan(config, TWO_STAGES, 2)) == ids_of(plan(config, plain, 2))
    assert ids_of(plan(config, TWO_STAGES, 4)) == ids_of(plan(config, plain, 4))
    assert seeds_of(plan(config, TWO_STAGES, 4)) == seeds_of(plan(config, plain, 4))
    assert not seeds_of(plan(config, TWO_STAGES, 2))


def test_an_adaptive_window_is_that_of_the_feedback_with_the_problems_offset(config):
    feedback = CarriedOver(methods.by_name("prefix_rft_adaptive").stage_at(0))
    name = ids_of(plan(config, "prefix_rft_adaptive"))[0]
    feedback.schedule_state |= {"low": 0.4, "problems": {name: (2, 0.8)}}
    one = plan_of(config, "prefix_rft_adaptive", feedback=feedback)
    assert (one.window.low, one.window.high) == pytest.approx((0.4, 0.6))
    lows = [group.planned[0].window_low for group in one.groups()]
    # Met twice, 0.8 below the mean in sum: 0.5 * 0.8 / (2 + 2) = 0.1 more of its demonstration.
    assert lows == pytest.approx([0.5] + [0.4] * 5)
    for group in one.groups():
        rollout = group.planned[0]
        assert rollout.window_low <= rollout.prefix_fraction <= rollout.window_high


def test_a_plan_keeps_its_window_when_the_feedback_goes_on(config):
    one = plan_of(config, "prefix_rft_adaptive")
    before = one.groups()
    one.feedback.observe(play(one.groups(), (1.0, 0.0, 0.0, 0.0)))
    assert one.feedback.schedule_state["low"] < 0.75
    assert one.groups() == before
    assert one.window.low == 0.75


def test_methods_without_prefixes_have_no_window(config):
    for name in set(METHODS) - set(PREFIX_ROLLOUTS):
        assert plan_of(config, name).window is None


def test_replacements_are_new_groups_of_new_problems(config):
    one = plan_of(config)
    groups = one.groups()
    fresh = one.replacements(4, groups)
    assert [group.group_id for group in fresh] == [6, 7, 8, 9]
    for group in fresh:
        assert {rollout.group_id for rollout in group.planned} == {group.group_id}
    assert len(set(ids_of(groups) + ids_of(fresh))) == 10
    # Two problems are left: they come first, then those that were met before.
    second = one.replacements(4, groups + fresh)
    assert [group.group_id for group in second] == [10, 11, 12, 13]
    unmet = {p.problem_id for p in PROBLEMS} - set(ids_of(groups) + ids_of(fresh))
    assert set(ids_of(second)[:2]) == unmet
    assert len(set(ids_of(second))) == 4
    assert len(seeds_of(groups + fresh + second)) == 14 * 4


def test_replacements_are_a_pure_function_of_what_was_sampled(config):
    groups = plan(config, iteration=1)
    expected = plan_of(config, iteration=1).replacements(3, groups)
    # Rewards are known by then: they change nothing.
    play(groups, (1.0, 0.0, 0.0, 0.0))
    one = plan_of(config, iteration=1)
    assert one.replacements(3, groups) == one.replacements(3, groups) == expected
    other = plan_of(config, iteration=1).replacements(3, [*groups, *expected])
    assert ids_of(other) != ids_of(expected)


def test_replacements_of_more_groups_than_problems_repeat_them_with_other_draws(config):
    config.training(num_problems_per_iteration=2, num_problems_per_minibatch=2)
    one = plan_of(config, problems=PROBLEMS[:3])
    groups = one.groups()
    fresh = one.replacements(4, groups)
    assert Counter(ids_of(groups + fresh)) == {"p0": 2, "p1": 2, "p2": 2}
    assert len(seeds_of(groups + fresh)) == 6 * 4


def failed_plan(config, iteration, feedback, buffer_size=4, problems=PROBLEMS):
    """An iteration of ReLIFT in which every rollout fails, after it was learned from."""
    relift = methods.relift(buffer_size=buffer_size)
    one = plan_of(config, relift, iteration, problems=problems, feedback=feedback)
    feedback.observe(play(one.groups(), (0.0,) * 4))
    return one


@pytest.fixture
def feedback():
    return CarriedOver(methods.relift().stage_at(0))


def test_an_imitation_step_takes_the_newest_failed_problems_once(config, feedback):
    first = failed_plan(config, 0, feedback)
    failed = ids_of(first.groups())
    assert feedback.failed == failed
    groups = first.imitation_groups()
    # Of 6 the newest 4, newest first; the oldest two wait on.
    assert ids_of(groups) == failed[:1:-1]
    assert feedback.failed == failed[:2]
    assert [group.group_id for group in groups] == [0, 1, 2, 3]
    for group in groups:
        assert group.planned == group.episodes == group.demonstration_rewards == []
        assert group.demonstration_indices == [0]
    assert first.imitation_groups() == []
    assert feedback.failed == failed[:2]


def test_an_imitation_step_waits_until_the_buffer_is_full(config, feedback):
    first = failed_plan(config, 0, feedback, buffer_size=7)
    assert first.imitation_groups() == []
    assert len(feedback.failed) == 6
    second = failed_plan(config, 1, feedback, buffer_size=7)
    names = ids_of(second.imitation_groups())
    assert names == (ids_of(first.groups()) + ids_of(second.groups()))[:-8:-1]


def test_only_problems_with_a_demonstration_are_imitated(config, feedback):
    problems = [problem(number, num_demonstrations=number % 2) for number in range(12)]
    one = failed_plan(config, 0, feedback, buffer_size=1, problems=problems)
    with_demonstration = [g.problem.problem_id for g in one.groups() if g.problem.demonstration_ids]
    assert feedback.failed == with_demonstration
    assert 0 < len(with_demonstration) < 6


def test_methods_without_imitation_steps_plan_none(config):
    for name in set(METHODS) - {"relift"}:
        one = plan_of(config, name)
        one.feedback.observe(play(one.groups(), (0.0,) * 4))
        assert one.feedback.failed == []
        assert one.imitation_groups() == []


def test_planning_asks_for_steps_and_rewards_only_where_they_count(config):
    asked = Counter()

    def note(kind, value):
        asked[kind] += 1
        return value

    noted = MadeFacts(
        answer_cut=lambda *key: note("cut", None),
        step_ends=lambda *key: note("steps", (1, 2)),
        reward=lambda *key: note("reward", 1.0),
    )
    for name in METHODS:
        asked.clear()
        plan(config, name, facts=noted)
        expected = {"cut"} if name in PREFIX_ROLLOUTS else set()
        expected |= {"uft": {"steps"}, "luffy": {"reward"}}.get(name, set())
        assert set(asked) == expected, name
