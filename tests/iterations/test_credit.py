"""Complete groups as rows: minibatches, credit, demonstration rows."""

from collections import Counter

import pytest

from prefix_rft_rllib import methods
from prefix_rft_rllib.iterations.carried_over import CarriedOver
from prefix_rft_rllib.iterations.credit import imitation_rows, learner_rows
from prefix_rft_rllib.iterations.groups import in_groups
from prefix_rft_rllib.rollouts import row_data
from tests.made_groups import NUM_PROBLEMS, facts, plan_of, play, problem


@pytest.fixture
def config(tiny_config):
    return tiny_config.training(
        group_size=4, num_problems_per_iteration=6, num_problems_per_minibatch=2
    )


def plan(config, method="prefix_rft", iteration=0, **changes):
    return plan_of(config, method, iteration, **changes).groups()


def rows_of(config, rewards=(1.0, 0.0, 0.0, 0.0), method="prefix_rft", iteration=0):
    groups = play(plan(config, method, iteration), rewards)
    return learner_rows(config, methods.build(method), groups, iteration)


def values(rows, name):
    return [row.custom_data[name] for row in rows]


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
    assert all(group.planned == [] for group in groups)
    rows = learner_rows(config, methods.build("sft"), groups, 0)
    assert len(rows) == 6
    for group, row in zip(groups, rows, strict=True):
        assert row_data.prompt_ids_of(row).tolist() == list(group.problem.prompt_ids)
        assert row_data.response_ids_of(row).tolist() == list(group.problem.demonstration_ids[0])
        assert row.custom_data[row_data.IS_DEMONSTRATION]
        assert not row.custom_data[row_data.IS_MEMBER]
        assert row.custom_data[row_data.ADVANTAGE] == 0.0
    assert Counter(values(rows, row_data.MINIBATCH)) == {0: 2, 1: 2, 2: 2}


def test_sft_with_several_demonstrations_takes_different_ones(config):
    problems = [problem(number, num_demonstrations=3) for number in range(NUM_PROBLEMS)]
    method = methods.build("sft", {"num_rows_per_problem": 2})
    groups = plan(config, method, problems=problems)
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
        for rollout, episode in zip(group.planned, group.episodes, strict=True):
            assert episode.custom_data[row_data.ROLLOUT] == rollout
        assert group.rewards == [1.0, 0.0, 0.0, 0.0]
    with pytest.raises(AssertionError, match="more episodes"):
        in_groups(groups[:1], [episode for group in groups for episode in group.episodes])


def test_a_demonstration_that_is_a_member_counts_in_the_mean_and_has_an_advantage(config):
    groups = plan(config, "luffy", facts=facts(rewards={"p4": 0.0, "p7": 0.25}))
    groups += plan(config, "luffy", 1, facts=facts(rewards={"p4": 0.0, "p7": 0.25}))
    rows = learner_rows(config, methods.luffy(), play(groups, (1.0, 0.0, 0.0)), 0)
    assert len(rows) == 48
    for group, members in zip(groups, zip(*[iter(rows)] * 4, strict=True), strict=True):
        # Rewards 1, 0, 0 of three rollouts and d of the demonstration: the mean is (1 + d) / 4.
        reward = {"p4": 0.0, "p7": 0.25}.get(group.problem.problem_id, 1.0)
        mean = (1.0 + reward) / 4
        advantages = [1.0 - mean, -mean, -mean, reward - mean]
        assert values(members, row_data.ADVANTAGE) == advantages
        assert values(members, row_data.IS_MEMBER) == [True] * 4
        assert values(members, row_data.IS_DEMONSTRATION) == [False] * 3 + [True]
        assert [rollout.member for rollout in values(members, row_data.ROLLOUT)] == [0, 1, 2, 3]
        assert members[3].get_return() == reward
        demonstration = list(group.problem.demonstration_ids[0])
        assert row_data.response_ids_of(members[3]).tolist() == demonstration
    assert len({row.custom_data[row_data.ROW_KEY] for row in rows[:24]}) == 24


def test_a_group_of_failures_has_signal_by_its_demonstration(config):
    groups = play(plan(config, "luffy", facts=facts(rewards={"p4": 0.0})), (0.0, 0.0, 0.0))
    groups += play(plan(config, "luffy", 1, facts=facts(rewards={"p4": 0.0})), (0.0, 0.0, 0.0))
    for group in groups:
        assert group.has_signal == (group.problem.problem_id != "p4")
    rows = learner_rows(config, methods.luffy(), groups, 0)
    for group, members in zip(groups, zip(*[iter(rows)] * 4, strict=True), strict=True):
        # 0 - 1/4 for the failures, 1 - 1/4 for the demonstration.
        expected = [-0.25] * 3 + [0.75] if group.has_signal else [0.0] * 4
        assert values(members, row_data.ADVANTAGE) == expected


def test_a_group_without_a_demonstration_is_compared_among_its_rollouts(config):
    problems = [problem(number, num_demonstrations=0) for number in range(NUM_PROBLEMS)]
    groups = play(plan(config, "luffy", problems=problems), (1.0, 0.0, 0.0, 1.0))
    rows = learner_rows(config, methods.luffy(), groups, 0)
    assert values(rows, row_data.ADVANTAGE) == [0.5, -0.5, -0.5, 0.5] * 6
    assert not any(values(rows, row_data.IS_DEMONSTRATION))


def test_demonstrations_beside_a_group_are_no_part_of_its_mean(config):
    groups = play(plan(config, "rl_with_sft_loss"), (1.0, 0.0, 0.0, 0.0))
    rows = learner_rows(config, methods.rl_with_sft_loss(), groups, 0)
    assert values(rows, row_data.ADVANTAGE) == [0.75, -0.25, -0.25, -0.25, 0.0] * 6
    assert values(rows, row_data.IS_MEMBER) == [True, True, True, True, False] * 6
    assert len({rollout.member for rollout in values(rows, row_data.ROLLOUT)}) == 5


def test_grpo_divides_by_the_standard_deviation_of_the_group(config):
    groups = play(plan(config, "grpo"), (1.0, 0.0, 0.0, 0.0))
    rows = learner_rows(config, methods.grpo(), groups, 0)
    # Mean 1/4; variance (9 + 1 + 1 + 1) / 16 / 3 = 1/4, so the deviation is 1/2.
    expected = [0.75 / (0.5 + 1e-6)] + [-0.25 / (0.5 + 1e-6)] * 3
    assert values(rows, row_data.ADVANTAGE) == pytest.approx(expected * 6, rel=1e-6)


def test_an_imitation_step_is_one_minibatch_of_demonstrations(config):
    feedback = CarriedOver(methods.relift().stage_at(0))
    one = plan_of(config, methods.relift(buffer_size=5), feedback=feedback)
    feedback.observe(play(one.groups(), (0.0,) * 4))
    groups = one.imitation_groups()
    rows = imitation_rows(config, groups, 0)
    assert values(rows, row_data.ROW_INDEX) == [0, 1, 2, 3, 4]
    assert len(set(values(rows, row_data.ROW_KEY))) == 5
    assert set(values(rows, row_data.MINIBATCH)) == {0}
    assert all(values(rows, row_data.IS_DEMONSTRATION))
    assert not any(values(rows, row_data.IS_LOGGED) + values(rows, row_data.IS_MEMBER))
    assert values(rows, row_data.ADVANTAGE) == [0.0] * 5
    for group, row in zip(groups, rows, strict=True):
        assert row_data.prompt_ids_of(row).tolist() == list(group.problem.prompt_ids)
        assert row_data.response_ids_of(row).tolist() == list(group.problem.demonstration_ids[0])
    assert imitation_rows(config, [], 0) == []
    other = imitation_rows(config, groups, 1)
    assert not set(values(other, row_data.ROW_KEY)) & set(values(rows, row_data.ROW_KEY))
