"""Env runners in this process and plans for them; a module names it in `pytest_plugins`."""

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from prefix_rft_rllib.connectors import episodes as row_data
from prefix_rft_rllib.core.prefix_sampling import Rollout
from prefix_rft_rllib.token_env_runner import TokenEnvRunner
from prefix_rft_rllib.torch.default_prefix_rft_torch_rl_module import DefaultPrefixRFTTorchRLModule

pytest_plugins = ("tests.algorithm_fixtures",)


@pytest.fixture(scope="module")
def weights(make_config) -> dict:
    """The tiny model's weights, as the learner's module gives them."""
    module = DefaultPrefixRFTTorchRLModule(
        observation_space=gym.spaces.Discrete(4),
        action_space=gym.spaces.Discrete(4),
        model_config=make_config().model_config,
    )
    return module.get_state(inference_only=True)


def runner_of(config, weights) -> TokenEnvRunner:
    config.validate()
    runner = TokenEnvRunner(config=config, worker_index=0)
    give(runner, weights, number=1)
    return runner


def give(runner, weights, number) -> None:
    runner.set_state({COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: weights}, WEIGHTS_SEQ_NO: number})


def scaled(weights, factor) -> dict:
    return {name: value * np.float32(factor) for name, value in weights.items()}


@pytest.fixture
def runner(make_config, weights) -> TokenEnvRunner:
    return runner_of(make_config(), weights)


def plan_of(runner, *num_prefix_tokens: int) -> list[Rollout]:
    """One rollout per prefix length, each of another problem."""
    problems = runner.env.unwrapped.problem_set.train
    return [
        Rollout(
            problem_id=problems[number].problem_id,
            group_id=number,
            member=0,
            seed=1000 + number,
            num_prefix_tokens=length,
        )
        for number, length in enumerate(num_prefix_tokens)
    ]


def tokens(episodes) -> list[list[int]]:
    return [row_data.response_ids_of(episode).tolist() for episode in episodes]
