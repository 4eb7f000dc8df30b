"""Engines and learners that take turns on one GPU."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from ray.rllib.core.learner.learner import Learner

if TYPE_CHECKING:
    from prefix_rft_rllib.prefix_rft import PrefixRFT


@contextlib.contextmanager
def engines_asleep(algorithm: "PrefixRFT") -> Iterator[None]:
    """During an update, leave the GPUs to the learners; the next weights wake the engines.

    Nothing happens unless `engine_config` has vLLM's `enable_sleep_mode`.

    Args:
        algorithm: With env runners that sample nothing meanwhile.
    """
    if not algorithm.config.engines_sleep:
        yield
        return
    algorithm.env_runner_group.foreach_env_runner(_sleep)
    yield
    algorithm.learner_group.foreach_learner(_free_memory)


def _sleep(env_runner: Any) -> None:
    env_runner.sleep()


def _free_memory(learner: Learner) -> None:
    """Give back what PyTorch keeps of an update's memory for the next one."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
