"""The plan of an iteration, and complete groups as rows."""

from collections import Counter

import pytest

from prefix_rft_rllib import methods
from prefix_rft_rllib.connectors import episodes as row_data
from prefix_rft_rllib.connectors.episodes import build_episode
from prefix_rft_rllib.envs.problems import Problem
from prefix_rft_rllib.groups import in_groups, learner_rows, plan_groups

NUM_PROBLEMS = 12


def problem(number, num_demonstrations=1):
    """A problem whose prompt and demonstrations tell its number."""
    demonstrations = [(200 + d, *range(100, 100 + number), 1) for d in range(num_demonstrations)]
    return Problem(
        problem_id=f"p{number}",
        domain="math",
        prompt=f"problem {number}",
        prompt_ids=(number, 3),
        answer="0",
        demonstrations=tuple(demonstrations),
        split="train",
        source=f"made:{number}",
        num_long_demonstrations=0,
    )


PROBLEMS = [problem(number) for number in range(NUM_PROBLEMS)]


@pytest.fixture
def config(tiny_config):
    return tiny_config.training(
        group_size=4, num_problems_per_iteration=6, num_problems_per_minibatch=2
    )


def no_cut(problem_id, demonstration_index):
    return None


def plan(config, method="prefix_rft", iteration=0, problems=PROBLEMS, cut=no_cut):
    return plan_groups(config, methods.build(method), problems, cut, iteration)


def play(groups, rewards):
    """Episodes for all rollouts; member m of a group gets `rewards[m]`."""
    episodes = [
        build_episode(
            group.problem.prompt_ids,
            (*group.problem.demonstrations[0][: rollout.num_prefix_tokens], 50, 51),
            custom_data={
                row_data.ROLLOUT: rollout,
                row_data.NUM_PREFIX_TOKENS: rollout.num_prefix_tokens,
                row_data.IS_DEMONSTRATION: False,
            },
            reward=rewards[rollout.member],
        )
        for group in groups
        for rollout in group.rollouts
    ]
    in_groups(groups, episodes)
    return groups


def rows_of(config, rewards=(1.0, 0.0, 0.0, 0.0), method="prefix_rft", iteration=0):
    groups = play(plan(config, method, iteration), rewards)
    return learner_rows(config, methods.build(method), groups, iteration)


def values(rows, name):
    return [row.custom_data[name] for row in rows]


def test_the_plan_is_a_function_of_seed_and_iteration(config):
    assert plan(config) == plan(config)
    other_seed = config.copy(copy_frozen=False).debugging(seed=1)
    for other in (plan(config, iteration=1), plan(other_seed)):
        assert [g.problem for g in other] != [g.problem for g in plan(config)]
        seeds = {r.seed for g in other for r in g.rollouts}
        assert not seeds & {r.seed for g in plan(config) for r in g.rollouts}


def test_every_problem_is_met_once_per_epoch(config):
    met = [g.problem.problem_id for i in (0, 1) for g in plan(config, iteration=i)]
    assert sorted(met) == sorted(p.problem_id for p in PROBLEMS)


def test_the_first_member_of_every_group_starts_from_a_prefix(config):
    groups = plan(config)
    assert [group.group_id for group in groups] == list(range(6))
    for group in groups:
        assert [rollout.member for rollout in group.rollouts] == [0, 1, 2, 3]
        assert {rollout.problem_id for rollout in group.rollouts} == {group.problem.problem_id}
        assert {rollout.group_id for rollout in group.rollouts} == {group.group_id}
        # Iteration 0: u is 0.95, so of n tokens floor(0.95 n), and at least one is left to sample.
        length = len(group.problem.demonstrations[0])
        expected = [min(max(1, int(0.95 * length)), length - 1), 0, 0, 0]
        assert [rollout.num_prefix_tokens for rollout in group.rollouts] == expected
        assert group.demonstration_indices == []


def test_a_prefix_ends_before_the_answer_of_its_own_demonstration(config):
    cuts = {p.problem_id: number % 3 for number, p in enumerate(PROBLEMS)}
    groups = plan(config, cut=lambda problem_id, index: cuts[problem_id])
    for group in groups:
        assert group.rollouts[0].num_prefix_tokens <= cuts[group.problem.problem_id]


def test_a_problem_met_twice_in_an_iteration_has_two_different_plans(config):
    config.training(num_problems_per_iteration=4, num_problems_per_minibatch=4)
    groups = plan(config, problems=[problem(9)])
    assert len({rollout.seed for group in groups for rollout in group.rollouts}) == 16


def test_minibatches_are_whole_groups_of_the_right_number(config):
    rows = rows_of(config)
    assert values(rows, row_data.ROW_INDEX) == list(range(24))
    assert len(set(values(rows, row_data.ROW_KEY))) == 24
    minibatch_of_group = {}
    for row in rows:
        group_id = row.custom_data[row_data.ROLLOUT].group_id
        minibatch_of_group.setdefault(group_id, set()).add(row.custom_data[row_data.MINIBATCH])
    assert all(len(numbers) == 1 for numbers in minibatch_of_group.values())
    counts = Counter(number for numbers in minibatch_of_group.values() for number in numbers)
    assert counts == {0: 2, 1: 2, 2: 2}


def test_groups_are_dealt_to_minibatches_by_a_seeded_permutation(config):
    config.training(num_problems_per_iteration=12)
    first = values(rows_of(config), row_data.MINIBATCH)
    assert first == values(rows_of(config), row_data.MINIBATCH)
    assert first != sorted(first)
    assert first != values(rows_of(config, iteration=1), row_data.MINIBATCH)
    other_seed = config.copy(copy_frozen=False).debugging(seed=1)
    assert first != values(rows_of(other_seed), row_data.MINIBATCH)


def test_keys_of_rows_differ_between_iterations(config):
    keys = [set(values(rows_of(config, iteration=i), row_data.ROW_KEY)) for i in (0, 1)]
    assert not keys[0] & keys[1]


def test_members_get_their_reward_minus_the_mean_of_the_whole_group(config):
    rows = rows_of(config, rewards=(1.0, 0.0, 1.0, 0.0))
    assert values(rows, row_data.ADVANTAGE) == [0.5, -0.5, 0.5, -0.5] * 6
    assert all(values(rows, row_data.IS_MEMBER))
    assert values(rows_of(config, rewards=(1.0,) * 4), row_data.ADVANTAGE) == [0.0] * 24


def test_sft_takes_the_demonstrations_and_samples_nothing(config):
    groups = plan(config, "sft")
    assert all(group.rollouts == [] for group in groups)
    rows = learner_rows(config, methods.build("sft"), groups, 0)
    assert len(rows) == 6
    for group, row in zip(groups, rows, strict=True):
        assert row_data.prompt_ids_of(row).tolist() == list(group.problem.prompt_ids)
        assert row_data.response_ids_of(row).tolist() == list(group.problem.demonstrations[0])
        assert row.custom_data[row_data.IS_DEMONSTRATION]
        assert not row.custom_data[row_data.IS_MEMBER]
        assert row.custom_data[row_data.ADVANTAGE] == 0.0
    assert Counter(values(rows, row_data.MINIBATCH)) == {0: 2, 1: 2, 2: 2}


def test_sft_with_several_demonstrations_takes_different_ones(config):
    problems = [problem(number, num_demonstrations=3) for number in range(NUM_PROBLEMS)]
    method = methods.build("sft", {"num_rows_per_problem": 2})
    groups = plan_groups(config, method, problems, no_cut, 0)
    assert all(len(set(group.demonstration_indices)) == 2 for group in groups)
    rows = learner_rows(config, method, groups, 0)
    firsts = [row_data.response_ids_of(row)[0] - 200 for row in rows]
    assert firsts == [index for group in groups for index in group.demonstration_indices]
    assert len(set(values(rows, row_data.ROW_KEY))) == 12


def test_prefix_rollouts_and_the_first_groups_with_signal_are_logged(config):
    config.reporting(num_logged_groups=1)
    groups = play(plan(config), (0.0, 0.0, 0.0, 0.0))
    # Only group 4 has signal.
    groups[4].episodes[2].rewards.data[-1] = 1.0
    assert [group.has_signal for group in groups] == [number == 4 for number in range(6)]
    rows = learner_rows(config, methods.build("prefix_rft"), groups, 0)
    for row in rows:
        rollout = row.custom_data[row_data.ROLLOUT]
        assert row.custom_data[row_data.IS_LOGGED] == (rollout.member == 0 or rollout.group_id == 4)


def test_episodes_go_to_the_groups_of_their_rollouts(config):
    groups = play(plan(config), (1.0, 0.0, 0.0, 0.0))
    for group in groups:
        for rollout, episode in zip(group.rollouts, group.episodes, strict=True):
            assert episode.custom_data[row_data.ROLLOUT] == rollout
        assert group.rewards == [1.0, 0.0, 0.0, 0.0]
    with pytest.raises(AssertionError, match="more episodes"):
        in_groups(groups[:1], [episode for group in groups for episode in group.episodes])
