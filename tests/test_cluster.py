"""Only the driver has data and model: env runners and a learner on another node."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from prefix_rft_rllib import PrefixRFTConfig, prefix_rft
from prefix_rft_rllib.envs.problems import load_problem_set
from prefix_rft_rllib.envs.toy.toy_arithmetic import generate_rows
from prefix_rft_rllib.models.causal_lm import load_lm
from prefix_rft_rllib.rollouts.token_env_runner import TokenEnvRunner
from tests.algorithm_runs import assert_close, assert_same_rollouts, numbers_of
from tests.small_configs import toy_rows

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = pytest.mark.integration


@pytest.fixture
def second_node(run, tmp_path, monkeypatch) -> Iterator[Path]:
    """Two nodes, of which only the second has CPUs; gives the second one's empty directory."""
    ray.shutdown()  # the cluster in which `run` was made
    # Other programs on this machine shall not take this cluster for theirs.
    monkeypatch.setattr(ray._private.utils, "write_ray_address", lambda *args: None)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 100 * 2**20},
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    with monkeypatch.context() as patch:
        patch.chdir(empty)
        cluster.add_node(num_cpus=3, object_store_memory=100 * 2**20)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield empty
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def inputs(tmp_path, tiny_model_dir) -> Path:
    """A folder with a copy of the model and the problems of `small_config` as a file."""
    folder = tmp_path / "inputs"
    shutil.copytree(tiny_model_dir, folder / "model")
    rows = generate_rows(**toy_rows(12)["data_config"])
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(text, encoding="utf-8")
    return folder


def config_of(make_config, inputs: Path, run_dir: Path) -> PrefixRFTConfig:
    data = {"data": str(inputs / "train.jsonl"), "data_config": {}}
    return (
        make_config(data, model_path=str(inputs / "model"))
        .env_runners(num_env_runners=2)
        .learners(num_learners=1)
        .fault_tolerance(restart_failed_env_runners=True)
        .reporting(run_dir=str(run_dir), num_logged_groups=4)
    )


def where(_=None) -> tuple[str, list[str]]:
    """A process's node and what is in its working directory."""
    return ray.get_runtime_context().get_node_id(), sorted(os.listdir())


def test_nodes_without_data_and_model_give_the_same_run(
    run, make_config, inputs, second_node, tmp_path, monkeypatch
):
    share = prefix_rft.with_shared_inputs

    def share_and_remove(config, problem_set):
        shared = share(config, problem_set)
        shutil.rmtree(inputs)  # before any other process starts; nobody has the files any more
        return shared

    monkeypatch.setattr(prefix_rft, "with_shared_inputs", share_and_remove)
    algo = config_of(make_config, inputs, tmp_path / "run").build_algo()
    assert not inputs.exists()
    driver_node, _ = where()
    runners = algo.env_runner_group.foreach_env_runner(where)
    (learner,) = [result.get() for result in algo.learner_group.foreach_learner(where)]
    assert len(runners) == 2
    for node, files in (*runners, learner):
        assert node != driver_node
        assert files == []
    assert_close(numbers_of(algo.train()), run.numbers[1])
    assert_same_rollouts(tmp_path / "run", 1, run)
    # A runner that starts again finds its inputs again.
    ray.kill(algo.env_runner_group._worker_manager.actors()[1], no_restart=False)
    while algo.env_runner_group.num_healthy_remote_env_runners() < 2:
        algo.restore_env_runners(algo.env_runner_group)
        algo.env_runner_group.foreach_env_runner(where)
    assert_close(numbers_of(algo.train()), run.numbers[2])
    algo.stop()


def test_without_the_shared_inputs_the_second_node_needs_the_files(
    make_config, inputs, second_node, tmp_path
):
    # Negative control: what env runner and learner would do by themselves.
    config = config_of(make_config, inputs, tmp_path / "run")
    env_config = config.token_env_config()
    shutil.rmtree(inputs)
    for function, argument in (
        (load_problem_set, env_config),
        (load_lm, config.model_path),
        (lambda c: TokenEnvRunner(config=c, worker_index=1), config),
    ):
        with pytest.raises(Exception, match=str(inputs)):
            ray.get(ray.remote(function).remote(argument))
