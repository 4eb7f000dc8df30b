"""GPUs of a running algorithm: who has which, who has none, and engines that lend theirs."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ray
import torch
from ray.rllib.core.learner.learner import Learner

from prefix_rft_rllib.learners.learner_group import PrefixRFTLearnerGroup, answers_in_order
from prefix_rft_rllib.processes.places import is_actor
from prefix_rft_rllib.rollouts.env_runners import EnvRunners
from prefix_rft_rllib.settings.gpu_shares import (
    Place,
    idle_gpus,
    shared_by_learners,
    unused,
    visible_gpu,
)
from prefix_rft_rllib.settings.settings import Settings

if TYPE_CHECKING:
    from prefix_rft_rllib.methods import Method

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def engines_asleep(
    config: Settings, learners: PrefixRFTLearnerGroup, env_runners: EnvRunners
) -> Iterator[None]:
    """During an update, leave the GPUs to the learners; the next weights wake the engines.

    Nothing happens unless `engine_config` has vLLM's `enable_sleep_mode`.

    Args:
        config: Validated settings.
        learners: Those that update.
        env_runners: Sample nothing meanwhile.
    """
    if not config.engines_sleep:
        yield
        return
    env_runners.call(_sleep)
    yield
    learners.foreach_learner(_free_memory)


def check_present_gpus(config: Settings, method: "Method") -> None:
    """Look at the GPUs that are there, before anything starts; say it if one stays idle.

    Args:
        config: Validated settings.
        method: The run's method.

    Raises:
        ValueError: If the learner in this process is to use a GPU that torch does not find.
    """
    is_driver = not is_actor()
    num_seen = torch.cuda.device_count() if is_driver and torch.cuda.is_available() else 0
    is_local = config.num_learners == 0 and config.num_gpus_per_learner > 0
    if is_local and is_driver and config.local_gpu_idx >= num_seen:
        raise ValueError(
            f"`num_gpus_per_learner` ({config.num_gpus_per_learner:g}) with `num_learners=0` "
            f"trains in this process, where torch finds {num_seen} GPUs (`local_gpu_idx` is "
            f"{config.local_gpu_idx}). Use config.learners(num_learners=1) on a cluster with GPUs, "
            "or num_gpus_per_learner=0 for the CPU."
        )
    known = ray.cluster_resources().get("GPU", 0) if ray.is_initialized() else 0
    samples = method.has_rollouts or bool(config.evaluation_interval)
    line = idle_gpus(config, max(known, num_seen), samples=samples)
    if line is not None:
        logger.warning(line)


def check_gpu_places(
    config: Settings, learners: PrefixRFTLearnerGroup, env_runners: EnvRunners
) -> None:
    """Compare the GPUs that Ray gave to learners and env runners.

    Args:
        config: Validated settings.
        learners: The run's learners.
        env_runners: Its env runners.

    Raises:
        ValueError: If two learners are on one GPU, which NCCL refuses or hangs on.
    """
    of_learners: list[Place] = []
    if config.num_gpus_per_learner:
        of_learners = answers_in_order(learners.foreach_learner(_place_of_learner))
    of_env_runners: list[Place] = []
    if config.num_env_runners and config.num_gpus_per_env_runner:
        of_env_runners = env_runners.call(_place_of_env_runner)
    shared = shared_by_learners(of_learners)
    if shared is not None:
        raise ValueError(
            f"Two learners are on one GPU: {shared}. Ray fills a GPU before it opens the next, so "
            f"`num_gpus_per_learner` ({config.num_gpus_per_learner:g}) left room for both. Use "
            "num_gpus_per_learner=1, or at least 0.51, or with as many env runners as GPUs "
            "num_gpus_per_env_runner=0.51 and num_gpus_per_learner=0.49."
        )
    if idle := unused([*of_learners, *of_env_runners]):
        logger.warning(
            "Torch finds no GPU in %s: they run on the CPU. Install torch with CUDA on all nodes, "
            "or tell Ray of no more GPUs than there are.",
            ", ".join(idle),
        )
    if config.num_learners == 0 and not is_actor():
        _say_lent_gpu(of_learners, of_env_runners)


def _say_lent_gpu(learners: list[Place], env_runners: list[Place]) -> None:
    """Ray does not know of the GPU of a learner in the driver, and may give it away."""
    taken = {(place.node, gpu): place.name for place in env_runners for gpu in place.gpus}
    for learner in learners:
        for gpu in learner.gpus:
            if other := taken.get((learner.node, gpu)):
                logger.warning(
                    "The learner in the main process uses GPU %s, which Ray gave to %s too. Use "
                    "config.learners(num_learners=1), or local_gpu_idx for another GPU.",
                    gpu,
                    other,
                )


def _gpus_here() -> tuple[str, ...]:
    context = ray.get_runtime_context()
    return tuple(str(gpu) for gpu in context.get_accelerator_ids().get("GPU", ()))


def _node_here() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _place_of_learner(learner: Learner) -> Place:
    device = torch.device(learner._device)
    if is_actor():
        name = f"learner {learner._learner_index or 0}"
        return Place(name, _node_here(), _gpus_here(), device.type)
    gpu = visible_gpu(os.environ, device.index or 0)
    node = _node_here() if ray.is_initialized() else ""
    return Place("the learner", node, (gpu,), device.type)


def _place_of_env_runner(env_runner: Any) -> Place:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Place(f"env runner {env_runner.worker_index}", _node_here(), _gpus_here(), device)


def _sleep(env_runner: Any) -> None:
    env_runner.sleep()


def _free_memory(learner: Learner) -> None:
    """Give back what PyTorch keeps of an update's memory for the next one."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
