"""Fixtures of the algorithm tests; a module names this one in `pytest_plugins` to have them."""

import functools
from collections.abc import Callable, Iterator

import pytest
import ray

from prefix_rft_rllib import PrefixRFTConfig
from tests.small_configs import small_config


@pytest.fixture(scope="session")
def make_config(tiny_model_dir) -> Callable[..., PrefixRFTConfig]:
    """`small_config` of the tiny random model."""
    return functools.partial(small_config, tiny_model_dir)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster for the tests of one module."""
    ray.init(
        num_cpus=4,
        log_to_driver=False,
        include_dashboard=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
    )
    yield
    ray.shutdown()
