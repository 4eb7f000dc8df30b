import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.core.advantages import GroupMean, GroupMeanStd, TwoLevel

REWARDS = st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=12)


def test_one_hybrid_success_among_eight_gives_signal_to_all():
    # Mean 1/8: the hybrid gets 7/8, each failure -1/8.
    advantages = GroupMean()([1.0] + [0.0] * 7, [True] + [False] * 7)
    assert advantages == [0.875] + [-0.125] * 7


def test_two_level_compares_with_the_plain_rollouts_only():
    # Plain rewards 1, 0, 0, 0: mean 1/4. Hybrid 1 - 1/4.
    advantages = TwoLevel()([1.0, 1.0, 0.0, 0.0, 0.0], [True] + [False] * 4)
    assert advantages == [0.75, 0.75, -0.25, -0.25, -0.25]


def test_grpo_divides_by_the_sample_deviation_by_hand():
    # Mean 1/4; squares 9/16 + 3 * 1/16 = 3/4, over G - 1 = 3: variance 1/4, deviation 1/2.
    advantages = GroupMeanStd()([1.0, 0.0, 0.0, 0.0], [False] * 4)
    assert advantages == pytest.approx([0.75 / 0.500001, *[-0.25 / 0.500001] * 3], rel=1e-7)
    # Two members: deviation sqrt(1/2), A = +-0.5 / (0.70710678 + 1e-6).
    advantages = GroupMeanStd()([1.0, 0.0], [False] * 2)
    assert advantages == pytest.approx([0.7071057811, -0.7071057811], rel=1e-7)


def test_grpos_divisor_is_never_zero():
    # Rewards 0 and 2e-6: deviation sqrt(2) * 1e-6, A = +-1e-6 / (1.41421356e-6 + 1e-6).
    advantages = GroupMeanStd()([0.0, 2e-6], [False] * 2)
    assert advantages == pytest.approx([-0.41421356, 0.41421356], rel=1e-6)


@given(REWARDS)
def test_grpos_advantages_are_the_default_ones_over_the_deviation(rewards):
    plain = [False] * len(rewards)
    advantages = GroupMeanStd()(rewards, plain)
    mean, deviation = statistics.fmean(rewards), statistics.stdev(rewards) + 1e-6
    expected = [(reward - mean) / deviation for reward in rewards]
    assert advantages == pytest.approx(expected, rel=1e-5, abs=1e-5)
    # At most sqrt(G - 1) * sqrt((G - 1) / G), for one that differs from all others.
    bound = (len(rewards) - 1) / math.sqrt(len(rewards))
    assert max(map(abs, advantages)) <= bound * (1 + 1e-6)


@given(REWARDS, st.lists(st.booleans(), min_size=12, max_size=12))
def test_means_over_the_whole_group_do_not_ask_who_had_a_prefix(rewards, flags):
    plain = [False] * len(rewards)
    for advantage in (GroupMean(), GroupMeanStd()):
        assert advantage(rewards, flags[: len(rewards)]) == advantage(rewards, plain)


@given(REWARDS)
def test_advantages_of_the_default_baseline_sum_to_zero(rewards):
    advantages = GroupMean()(rewards, [False] * len(rewards))
    assert abs(sum(advantages)) <= 1e-6 * max(1.0, *map(abs, rewards)) * len(rewards)


@given(REWARDS)
def test_two_level_without_prefix_rollouts_is_the_group_mean(rewards):
    plain = [False] * len(rewards)
    assert TwoLevel()(rewards, plain) == GroupMean()(rewards, plain)


@given(st.floats(-10, 10, width=32), st.integers(2, 12))
def test_equal_rewards_give_exact_zeros(reward, size):
    assert GroupMean()([reward] * size, [False] * size) == [0.0] * size
    assert GroupMeanStd()([reward] * size, [False] * size) == [0.0] * size
    assert TwoLevel()([reward] * size, [True] + [False] * (size - 1)) == [0.0] * size


def test_equal_rewards_give_exact_zeros_where_the_rounded_mean_does_not():
    assert sum([0.1] * 3) / 3 != 0.1
    assert GroupMean()([0.1] * 3, [False] * 3) == [0.0] * 3
    assert GroupMeanStd()([0.1] * 3, [False] * 3) == [0.0] * 3


def test_advantages_are_rounded_to_float32_once():
    advantages = GroupMean()([1.0, 0.0, 0.0], [False] * 3)
    assert advantages == [float(np.float32(value)) for value in (2 / 3, -1 / 3, -1 / 3)]
    assert advantages[1] != -1 / 3


@pytest.mark.parametrize("advantage", [GroupMean(), GroupMeanStd(), TwoLevel()])
@pytest.mark.parametrize("rewards", [[], [1.0]])
def test_a_group_of_one_raises(advantage, rewards):
    with pytest.raises(ValueError, match=r"at least 2 members.*`group_size`"):
        advantage(rewards, [False] * len(rewards))


def test_two_level_needs_a_plain_rollout():
    with pytest.raises(ValueError, match="plain rollouts"):
        TwoLevel()([1.0, 0.0], [True, True])


def test_rewards_that_are_no_numbers_raise():
    with pytest.raises(ValueError, match="finite"):
        GroupMean()([1.0, float("nan")], [False, False])


def test_flags_must_match_the_rewards():
    with pytest.raises(ValueError, match="one entry per member"):
        GroupMean()([1.0, 0.0], [False])
