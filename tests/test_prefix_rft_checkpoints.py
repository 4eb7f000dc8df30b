"""Restoring: a run goes on as if it had not been interrupted, also back in time."""

import numpy as np
import pytest
from ray.rllib.core import DEFAULT_MODULE_ID

from prefix_rft_rllib import PrefixRFT
from prefix_rft_rllib.runs.run_directory import read_metrics, read_minibatches
from tests.algorithm_runs import (
    assert_same_weights,
    numbers_of,
    rollouts_of,
    weights_of,
)

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]


def test_a_restored_run_continues_exactly_like_an_uninterrupted_one(run, tmp_path):
    algo = PrefixRFT.from_checkpoint(run.checkpoints[1])
    assert algo.iteration == 1
    assert_same_weights(weights_of(algo), run.weights[1])
    for iteration in (2, 3):
        result = algo.train()
        assert result["training_iteration"] == iteration
        assert numbers_of(result) == pytest.approx(run.numbers[iteration], rel=1e-6, abs=1e-7)
        assert rollouts_of(run.run_dir, iteration) == run.rollouts[iteration]
        assert_same_weights(weights_of(algo), run.weights[iteration])
    algo.stop()
    # It went on in the same run directory, as if it had not been interrupted.
    assert [row["training_iteration"] for row in read_metrics(run.run_dir)] == [1, 2, 3]
    assert len(read_minibatches(run.run_dir)) == 6


def test_rolling_back_a_live_algorithm_gives_its_runner_the_older_weights(local_algo, run):
    local_algo.restore_from_path(run.checkpoints[2])
    local_algo.train()
    local_algo.restore_from_path(run.checkpoints[1])
    assert local_algo.iteration == 1
    assert_same_weights(weights_of(local_algo), run.weights[1])
    result = local_algo.train()
    assert numbers_of(result) == pytest.approx(run.numbers[2], rel=1e-6, abs=1e-7)
    assert rollouts_of(local_algo.config.run_dir, 2) == run.rollouts[2]


def test_restoring_the_model_alone_reaches_the_runner(local_algo, run):
    # The number of the weights stays the same: the runner must take them all the same.
    local_algo.restore_from_path(run.checkpoints[1])
    component = f"learner_group/learner/rl_module/{DEFAULT_MODULE_ID}"
    local_algo.restore_from_path(f"{run.checkpoints[3]}/{component}", component=component)
    assert_same_weights(weights_of(local_algo), run.weights[3])
    assert_engine_has(local_algo.env_runner, run.weights[3])


def assert_engine_has(runner, weights: dict[str, np.ndarray]) -> None:
    own = runner.engine._open_model().state_dict()
    assert_same_weights({name: own[name].numpy() for name in weights}, weights)
