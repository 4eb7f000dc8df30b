"""Placement as Ray does it: clusters too small, growing ones, eight GPUs that Ray is told of."""

import logging
import threading
import time

import pytest
import ray
import torch
from ray import tune
from ray.cluster_utils import Cluster
from ray.rllib.core.learner import learner_group as rllib_learner_group
from ray.rllib.core.learner.torch import torch_learner
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as InGroup

from prefix_rft_rllib import PrefixRFT
from prefix_rft_rllib.learners.torch.prefix_rft_torch_learner import PrefixRFTTorchLearner
from prefix_rft_rllib.settings import placement_checks
from prefix_rft_rllib.settings.placement_checks import check_placement, check_trial, pending_said
from prefix_rft_rllib.transfers import shared_gpus

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = pytest.mark.integration

NUM_GPUS = 8


@ray.remote(num_cpus=0)
class Light:
    """Stands in for an env runner or learner: it holds resources and knows its GPUs."""

    def gpus(self) -> list[str]:
        return ray.get_runtime_context().get_accelerator_ids()["GPU"]


@pytest.fixture(scope="module")
def eight_gpus():
    """A cluster of two CPUs and eight GPUs that exist for Ray only."""
    ray.shutdown()
    ray.init(
        num_cpus=2,
        num_gpus=NUM_GPUS,
        log_to_driver=False,
        include_dashboard=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _soon_said(monkeypatch):
    monkeypatch.setattr(placement_checks, "FIRST_MESSAGE_S", 0.5)
    monkeypatch.setattr(placement_checks, "FIRST_PENDING_S", 1.0)


def assert_everything_is_free(seconds: float = 20.0) -> None:
    """No actor is left that holds anything."""
    end = time.monotonic() + seconds
    while True:
        free, all_of_it = ray.available_resources(), ray.cluster_resources()
        if all(free.get(name, 0) == all_of_it.get(name, 0) for name in ("CPU", "GPU")):
            return
        assert time.monotonic() < end, free
        time.sleep(0.2)


def assert_said_in_time(build) -> str:
    """The error of settings that do not fit two CPUs, within ten seconds."""
    started = time.monotonic()
    with pytest.raises(ValueError, match="Ray has no room for this") as caught:
        build()
    assert time.monotonic() - started < 10
    assert not [a for a in ray._private.state.actors().values() if a["State"] != "DEAD"]
    return str(caught.value)


def test_a_run_that_needs_three_cpus_of_two_says_so_at_once(eight_gpus, make_config):
    config = make_config().env_runners(num_env_runners=2).learners(num_learners=1)
    message = assert_said_in_time(config.build_algo)
    for part in (
        "3 CPU asked for by 2 env runners x 1 (`num_env_runners`, `num_cpus_per_env_runner`)",
        "2 there",
        "config.env_runners(num_env_runners=1)",
        "config.learners(num_learners=0)",
        "ray.init(num_cpus=3)",
    ):
        assert part in message


def test_a_trial_that_needs_four_cpus_of_two_says_so_at_once(eight_gpus, make_config, tmp_path):
    config = make_config().env_runners(num_env_runners=2).learners(num_learners=1)
    run_config = tune.RunConfig(storage_path=str(tmp_path), verbose=0)
    tuner = tune.Tuner(PrefixRFT, param_space=config, run_config=run_config)
    assert "4 CPU asked for by 1 main process x 1" in assert_said_in_time(tuner.fit)


def test_what_others_use_is_waited_for_and_said(eight_gpus, make_config, caplog):
    config = make_config().env_runners(num_env_runners=1).learners(num_learners=1)
    other = Light.options(num_cpus=1).remote()
    ray.get(other.gpus.remote())
    config.resources(placement_timeout_s=2)
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="Waited 2 seconds"):
        config.build_algo()
    assert "Ray has room for this run, but others use it: 2 CPU asked for" in caplog.text
    # What becomes free while it waits is taken.
    threading.Timer(1, ray.kill, [other]).start()
    check_placement(config.copy(copy_frozen=False).resources(placement_timeout_s=None))
    assert_everything_is_free()


def test_eight_env_runners_and_eight_learners_have_one_of_each_on_every_gpu(eight_gpus):
    env_runners = [Light.options(num_gpus=0.51).remote() for _ in range(NUM_GPUS)]
    of_env_runners = ray.get([actor.gpus.remote() for actor in env_runners])
    learners = [Light.options(num_gpus=0.49).remote() for _ in range(NUM_GPUS)]
    of_learners = ray.get([actor.gpus.remote() for actor in learners])
    every_gpu = [[str(gpu)] for gpu in range(NUM_GPUS)]
    assert sorted(of_env_runners) == sorted(of_learners) == every_gpu
    for actor in env_runners + learners:
        ray.kill(actor)
    assert_everything_is_free()
    # The control: halves put two of a kind on one GPU.
    halves = [Light.options(num_gpus=0.5).remote() for _ in range(2)]
    first, second = ray.get([actor.gpus.remote() for actor in halves])
    assert first == second
    for actor in halves:
        ray.kill(actor)
    assert_everything_is_free()


def test_a_trial_that_was_given_too_little_says_so(eight_gpus, make_config):
    group = ray.util.placement_group([{"CPU": 1}])
    config = make_config().env_runners(num_env_runners=1)
    check = ray.remote(num_cpus=1)(check_placement).options(scheduling_strategy=InGroup(group))
    with pytest.raises(ValueError, match="The trial's own resources have no room for it: 2 CPU"):
        ray.get(check.remote(config))
    ray.util.remove_placement_group(group)
    assert_everything_is_free()


class OnCPU(PrefixRFTTorchLearner):
    """A learner whose GPU exists for Ray only."""

    def build(self) -> None:
        torch_learner.get_device = lambda config, num_gpus_requested=1: torch.device("cpu")
        super().build()


@pytest.fixture
def on_shared_gpus(eight_gpus, make_config, monkeypatch):
    """Makes settings of env runners and learners on GPUs that exist for Ray only."""
    backend_config = rllib_learner_group._get_backend_config

    def with_gloo(learner_class):
        config = backend_config(learner_class)
        config.backend = "gloo"
        return config

    monkeypatch.setattr(rllib_learner_group, "_get_backend_config", with_gloo)

    def make(num_env_runners: int, runner: float, learner: float):
        return (
            make_config(learner_class=OnCPU)
            .env_runners(
                num_env_runners=num_env_runners,
                num_cpus_per_env_runner=0.5,
                num_gpus_per_env_runner=runner,
            )
            .learners(num_learners=2, num_gpus_per_learner=learner)
        )

    return make


@pytest.mark.slow
def test_an_algorithm_has_one_learner_and_one_engine_on_each_gpu(on_shared_gpus, caplog, tmp_path):
    config = on_shared_gpus(2, 0.51, 0.49).reporting(run_dir=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        algo = config.build_algo()
    places = [
        *(r.get() for r in algo.learner_group.foreach_learner(shared_gpus._place_of_learner)),
        *algo.env_runner_group.foreach_env_runner(
            shared_gpus._place_of_env_runner, local_env_runner=False
        ),
    ]
    gpus = {place.name: place.gpus for place in places}
    assert gpus.keys() == {"learner 0", "learner 1", "env runner 1", "env runner 2"}
    assert sorted(gpu for (gpu,) in gpus.values()) == ["0", "0", "1", "1"]
    assert gpus["learner 0"] != gpus["learner 1"]
    assert gpus["env runner 1"] != gpus["env runner 2"]
    assert "Torch finds no GPU in learner 0 (GPU " in caplog.text
    assert "Ray has not yet found a place" not in caplog.text
    algo.train()
    algo.stop()
    assert_everything_is_free()


@pytest.mark.slow
def test_two_learners_that_came_onto_one_gpu_end_the_build(on_shared_gpus, tmp_path):
    other = Light.options(num_gpus=0.5).remote()  # the env runner fills the rest of its GPU
    ray.get(other.gpus.remote())
    config = on_shared_gpus(1, 0.5, 0.5).reporting(run_dir=str(tmp_path))
    with pytest.raises(ValueError, match="learner 0 and learner 1 are both on GPU 1 of node"):
        config.build_algo()
    ray.kill(other)
    assert_everything_is_free()


@pytest.fixture
def small_cluster(monkeypatch):
    """A cluster of one CPU that nodes may join."""
    ray.shutdown()
    # Other programs on this machine shall not take this cluster for theirs.
    monkeypatch.setattr(ray._private.utils, "write_ray_address", lambda *args: None)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_cluster_that_may_grow_is_waited_for_and_what_is_missing_said(
    small_cluster, make_config, caplog
):
    config = make_config().env_runners(num_env_runners=1).learners(num_learners=1)
    config.resources(placement_timeout_s=2)
    with caplog.at_level(logging.WARNING):
        with pytest.raises(ValueError, match=r"1 there.*Waited 2 seconds"):
            check_placement(config)
        check_trial(config)  # says it in the background
        waiting = threading.Thread(
            target=check_placement, args=(config.copy().resources(placement_timeout_s=None),)
        )
        waiting.start()
        time.sleep(1.5)
        assert waiting.is_alive()
        small_cluster.add_node(num_cpus=2)
        waiting.join(timeout=30)
        assert not waiting.is_alive()
        assert "Waiting since 1 seconds. Ray has no room for this run: 2 CPU" in caplog.text
        assert "Waiting for machines. Ray has no room for this trial: 3 CPU" in caplog.text
        caplog.clear()
        # Both CPUs of one node are in use, and the other one's: no place for an env runner.
        used = [Light.options(num_cpus=1).remote() for _ in range(3)]
        ray.get([actor.gpus.remote() for actor in used])
        with pending_said(config):
            late = Light.options(num_cpus=1).remote()
            time.sleep(4)
        assert (
            "Ray has not yet found a place for processes that ask for as much as 1 of 1 env "
            in (caplog.text)
        )
        del late, used
