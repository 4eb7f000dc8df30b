"""Fixtures of the algorithm tests; a module names this one in `pytest_plugins` to have them."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from prefix_rft_rllib import PrefixRFT, PrefixRFTConfig
from tests.algorithm_runs import Run, train_undisturbed
from tests.method_runs import NUM_ITERATIONS, method_config
from tests.small_configs import small_config


def start_cluster() -> None:
    """Start Ray, unless another fixture has."""
    if not ray.is_initialized():
        ray.init(
            num_cpus=4,
            log_to_driver=False,
            include_dashboard=False,
            logging_level="ERROR",
            object_store_memory=200 * 2**20,
        )


@pytest.fixture(scope="session")
def make_config(tiny_model_dir) -> Callable[..., PrefixRFTConfig]:
    """`small_config` of the tiny random model."""
    return functools.partial(small_config, tiny_model_dir)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster for the tests of one module."""
    start_cluster()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def run(make_config, tmp_path_factory) -> Run:
    """Three iterations in the driver, nothing disturbed."""
    start_cluster()
    return train_undisturbed(make_config(), tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="session")
def method_run(make_config, tmp_path_factory) -> Callable[..., Run]:
    """Gives the undisturbed run of a method in the driver; each is trained once."""

    runs: dict[str, Run] = {}

    def run_of(name: str, **training: Any) -> Run:
        key = repr((name, training))
        if key not in runs:
            start_cluster()
            config = method_config(make_config, name, **training)
            run_dir = tmp_path_factory.mktemp(name)
            runs[key] = train_undisturbed(config, run_dir, num_iterations=NUM_ITERATIONS)
        return runs[key]

    return run_of


@pytest.fixture(scope="module")
def local_algo(cluster, make_config, tmp_path_factory) -> Iterator[PrefixRFT]:
    """An algorithm in the driver that tests restore to the state they need."""
    run_dir = tmp_path_factory.mktemp("local")
    algo = make_config().reporting(run_dir=str(run_dir), num_logged_groups=4).build_algo()
    yield algo
    algo.stop()
