"""The environments under algorithms of others: RLlib's PPO, Stable-Baselines3's checker."""

import importlib.util
import math
import os
import warnings

import gymnasium as gym
import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations

import prefix_rft_rllib.envs  # noqa: F401  registers the environments

pytest_plugins = ("tests.algorithm_fixtures",)


def require_stable_baselines3() -> None:
    """Skip where it is not installed; in continuous integration (CI=true) fail instead."""
    if importlib.util.find_spec("stable_baselines3") is not None:
        return
    reason = "Stable-Baselines3 is not installed (the extra [test])"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.mark.parametrize("name", ["ToyArithmetic", "ToyCode"])
def test_the_checker_of_stable_baselines3_finds_nothing(name):
    require_stable_baselines3()
    from stable_baselines3.common.env_checker import check_env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(f"PrefixRFT/{name}-v0").unwrapped)


@pytest.mark.integration
def test_ppo_of_rllib_trains_an_iteration(cluster):
    config = (
        PPOConfig()
        .environment("PrefixRFT/ToyArithmetic-v0")
        .env_runners(
            num_env_runners=0,
            # RLlib's own networks read floats; observations are token ids.
            env_to_module_connector=lambda env, spaces, device: FlattenObservations(),
        )
        .training(train_batch_size_per_learner=200, minibatch_size=100, num_epochs=1)
    )
    algo = config.build_algo()
    result = algo.train()
    algo.stop()
    assert result["env_runners"]["num_env_steps_sampled"] >= 200
    assert math.isfinite(result["learners"]["default_policy"]["policy_loss"])
    # Random tokens: no answer is right.
    assert result["env_runners"]["episode_return_mean"] == 0
