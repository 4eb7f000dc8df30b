"""Fixtures of the env runner's tests; a module names this one in `pytest_plugins`."""

import gymnasium as gym
import pytest

from prefix_rft_rllib.learners.torch.default_prefix_rft_torch_rl_module import (
    DefaultPrefixRFTTorchRLModule,
)
from prefix_rft_rllib.rollouts.token_env_runner import TokenEnvRunner
from tests.rollouts.env_runner_plans import runner_of

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


@pytest.fixture
def runner(make_config, weights) -> TokenEnvRunner:
    return runner_of(make_config(), weights)
