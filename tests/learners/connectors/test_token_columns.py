"""Episodes to columns: every value stands at its own token."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.rllib.core import DEFAULT_MODULE_ID

from prefix_rft_rllib.core.prefix_sampling import PlannedRollout
from prefix_rft_rllib.learners.connectors.add_tokens_from_episodes_to_batch import (
    AddTokensFromEpisodesToBatch,
    columns_from_dict,
    columns_to_dict,
    token_columns_of,
)
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.row_data import build_episode
from tests.learners.torch.learners import make_row, make_rows
from tests.token_batches import LETTERS

NAN = float("nan")


def data(*, num_prefix=0, is_demonstration=False, advantage=0.0, index=0):
    return {
        row_data.ROLLOUT: PlannedRollout(
            problem_id="p", group_id=0, member=index, seed=0, num_prefix_tokens=num_prefix
        ),
        row_data.IS_DEMONSTRATION: is_demonstration,
        row_data.IS_MEMBER: not is_demonstration,
        row_data.ADVANTAGE: advantage,
        row_data.ROW_INDEX: index,
        row_data.ROW_KEY: 2**62 + index,
        row_data.MINIBATCH: 3,
        row_data.IS_LOGGED: index == 0,
    }


def three_episodes():
    """A hybrid rollout, a plain one, a demonstration row."""
    return [
        build_episode(
            [11, 12],
            [21, 22, 31, 32],
            logps=[NAN, NAN, -0.25, -0.5],
            reward=1.0,
            custom_data=data(num_prefix=2, advantage=0.75, index=4),
        ),
        build_episode(
            [13], [33], logps=[-1.5], custom_data=data(advantage=-0.75, index=0), terminated=False
        ),
        build_episode([14, 15], [41], custom_data=data(is_demonstration=True, index=7)),
    ]


def test_columns_by_hand():
    columns = token_columns_of(three_episodes())
    assert columns.input_ids.tolist() == [
        [11, 12, 21, 22, 31, 32],
        [13, 33, 0, 0, 0, 0],
        [14, 15, 41, 0, 0, 0],
    ]
    pictures = ["xxpprr", "xr....", "xxd..."]
    assert columns.region.tolist() == [[int(LETTERS[c]) for c in row] for row in pictures]
    np.testing.assert_array_equal(
        columns.engine_logp.numpy(),
        [[NAN, NAN, NAN, NAN, -0.25, -0.5], [NAN, -1.5, *[NAN] * 4], [NAN] * 6],
    )
    assert columns.advantage.tolist() == [0.75, -0.75, 0.0]
    # Nobody graded the demonstration.
    np.testing.assert_array_equal(columns.reward.numpy(), [1.0, 0.0, NAN])
    assert columns.row_index.tolist() == [4, 0, 7]
    # Not representable in float64: the keys never pass through one.
    assert columns.row_key.tolist() == [2**62 + 4, 2**62, 2**62 + 7]
    assert columns.is_member.tolist() == [True, True, False]
    assert columns.old_logp is None
    assert columns.entropy is None
    dtypes = {name: value.dtype for name, value in columns_to_dict(columns).items()}
    assert dtypes == {
        "input_ids": torch.int64,
        "region": torch.int8,
        "advantage": torch.float32,
        "reward": torch.float32,
        "row_index": torch.int64,
        "row_key": torch.int64,
        "is_member": torch.bool,
        "engine_logp": torch.float32,
    }


def test_a_demonstration_that_is_a_member_has_its_reward():
    rows = [make_row("xxDD", reward=1.0), make_row("xxdd", reward=1.0), make_row("xr", reward=0.5)]
    np.testing.assert_array_equal(token_columns_of(rows).reward.numpy(), [1.0, NAN, 0.5])


def test_an_episode_has_the_prompt_behind_it_and_a_step_per_response_token():
    episode = three_episodes()[0]
    assert len(episode) == 4
    assert episode.get_return() == 1.0
    assert episode.is_terminated
    assert not episode.is_truncated
    assert row_data.prompt_ids_of(episode).tolist() == [11, 12]
    assert row_data.response_ids_of(episode).tolist() == [21, 22, 31, 32]
    assert episode.get_actions().tolist() == [21, 22, 31, 32]
    # The observation is the newest token: the prompt's last one, then each response token.
    assert episode.get_observations().tolist() == [12, 21, 22, 31, 32]
    assert episode.get_rewards().tolist() == [0, 0, 0, 1]
    assert row_data.num_tokens_of(episode) == 6
    assert three_episodes()[1].is_truncated


def test_the_columns_survive_the_way_through_a_batch():
    columns = token_columns_of(three_episodes())
    batch = columns_to_dict(columns) | {"minibatch": torch.zeros(3)}
    again = columns_from_dict(batch)
    for name, value in columns_to_dict(columns).items():
        torch.testing.assert_close(getattr(again, name), value, equal_nan=True, rtol=0, atol=0)


def test_the_piece_adds_the_marks_of_the_rows():
    piece = AddTokensFromEpisodesToBatch(device=torch.device("cpu"))
    batch = piece(rl_module=None, batch={}, episodes=three_episodes())[DEFAULT_MODULE_ID]
    assert batch[row_data.MINIBATCH].tolist() == [3, 3, 3]
    assert batch[row_data.IS_LOGGED].tolist() == [False, True, False]


@st.composite
def pictures(draw):
    prompt, prefix = draw(st.integers(1, 4)), draw(st.integers(0, 4))
    response = draw(st.integers(1, 5))
    if draw(st.booleans()):
        return "x" * prompt + "p" * prefix + "r" * response
    return "x" * prompt + "d" * response


@settings(max_examples=40, deadline=None)
@given(st.lists(pictures(), min_size=1, max_size=5))
def test_regions_are_those_of_the_picture_whatever_the_other_rows(rows):
    columns = token_columns_of(make_rows(rows, [0.0] * len(rows)))
    width = max(map(len, rows))
    for index, picture in enumerate(rows):
        expected = [int(LETTERS[letter]) for letter in picture.ljust(width, ".")]
        assert columns.region[index].tolist() == expected
        is_sampled = ~columns.engine_logp[index].isnan()
        assert is_sampled.tolist() == [code == LETTERS["r"] for code in expected]
        alone = token_columns_of([make_row(picture, index=index)])
        assert torch.equal(columns.input_ids[index, : len(picture)], alone.input_ids[0])
