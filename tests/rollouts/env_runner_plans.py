"""Env runners in this process, and plans for them."""

import numpy as np
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from prefix_rft_rllib.core.prefix_sampling import PlannedRollout
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.token_env_runner import TokenEnvRunner


def runner_of(config, weights) -> TokenEnvRunner:
    config.validate()
    runner = TokenEnvRunner(config=config, worker_index=0)
    give(runner, weights, number=1)
    return runner


def give(runner, weights, number) -> None:
    runner.set_state({COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: weights}, WEIGHTS_SEQ_NO: number})


def scaled(weights, factor) -> dict:
    return {name: value * np.float32(factor) for name, value in weights.items()}


def plan_of(runner, *num_prefix_tokens: int) -> list[PlannedRollout]:
    """One rollout per prefix length, each of another problem."""
    problems = runner.env.unwrapped.problem_set.train
    return [
        PlannedRollout(
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
