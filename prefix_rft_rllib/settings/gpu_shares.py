"""Which settings use GPUs, and who shares one with whom: arithmetic alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefix_rft_rllib.settings.placement import gpus_of
from prefix_rft_rllib.settings.placement_checks import demand_of
from prefix_rft_rllib.settings.settings import Settings

VLLM_MEMORY_SHARE = 0.9
"""Least share of a GPU's memory that vLLM takes unless `gpu_memory_utilization` says otherwise."""

ONE_OF_EACH = "num_gpus_per_env_runner=0.51 and num_gpus_per_learner=0.49"
"""Fractions that put one env runner and one learner on each GPU."""


@dataclass(frozen=True)
class Place:
    """Where a learner or env runner runs.

    Attributes:
        name: Who it is.
        node: Id of its node.
        gpus: Ids of the GPUs that Ray gave it, as the node numbers them.
        device: Type of its torch device, "cpu" or "cuda".
    """

    name: str
    node: str
    gpus: tuple[str, ...]
    device: str


def check_gpu_settings(config: Settings) -> None:
    """Check GPUs per process, and that no two learners will be on one GPU.

    Evaluation env runners are those of the training config.

    Args:
        config: The settings.

    Raises:
        ValueError: Naming the setting, its value, what is allowed and what to try.
    """
    if config.in_evaluation:
        return
    for name in ("num_gpus_per_learner", "num_gpus_per_env_runner"):
        amount = getattr(config, name)
        if amount > 1 and amount != int(amount):
            config._value_error(
                f"`{name}` ({amount}) must be a whole number, or a fraction below 1: Ray splits no "
                "GPU among actors that have more than one."
            )
    if config.num_gpus_per_learner > 1:
        config._value_error(
            f"`num_gpus_per_learner` ({config.num_gpus_per_learner}): a learner uses one GPU. Use "
            "more learners, config.learners(num_learners=..., num_gpus_per_learner=1), with "
            "parallelism='fsdp' where the model does not fit one GPU."
        )
    _check_engine_gpus(config)
    _check_shared_gpus(config)


def _check_engine_gpus(config: Settings) -> None:
    """Check that the engine uses the GPUs that its env runner asks for, and no others."""
    amount, engine_config = config.num_gpus_per_env_runner, config.engine_config
    if amount and not config.num_env_runners and not config.evaluation_num_env_runners:
        config._value_error(
            f"`num_gpus_per_env_runner` ({amount:g}) has no effect with `num_env_runners=0`: the "
            "engine in the main process uses the learner's GPU, config.learners(num_learners=0, "
            "num_gpus_per_learner=1). Or use config.env_runners(num_env_runners=1)."
        )
    used = 1
    if config.engine == "vllm":
        for name in ("tensor_parallel_size", "pipeline_parallel_size"):
            used *= engine_config.get(name) or 1
    if amount and amount != used and max(amount, used) > 1:
        config._value_error(
            f"`num_gpus_per_env_runner` is {amount:g}, but the engine {config.engine!r} uses "
            f"{used} with these settings. Make them equal; GPUs of several env runners are used by "
            "num_env_runners."
        )
    device = engine_config.get("device")
    has_gpu = amount > 0
    if not config.num_env_runners:
        has_gpu = config.num_learners == 0 and config.num_gpus_per_learner > 0
    if device is None or str(device).startswith("cuda") == has_gpu:
        return
    setting = "num_gpus_per_env_runner" if config.num_env_runners else "num_gpus_per_learner"
    config._value_error(
        f"`device` in engine_config ({device!r}) does not go with `{setting}` "
        f"({getattr(config, setting):g}): an engine uses the GPU that Ray gives its process, and "
        "the CPU without one. Leave `device` out and set the number of GPUs."
    )


def _check_shared_gpus(config: Settings) -> None:
    """Check that Ray's order of filling GPUs leaves every learner, and vLLM, enough of one."""
    given = gpus_of(demand_of(config, is_trial=False).parts())
    learners = given.get("learner", [])
    if len(set(learners)) < len(learners):
        config._value_error(
            f"`num_gpus_per_learner` ({config.num_gpus_per_learner:g}) with "
            f"`num_gpus_per_env_runner` ({config.num_gpus_per_env_runner:g}) puts two of the "
            f"{config.num_learners} learners on one GPU, where NCCL cannot run: Ray fills a GPU "
            f"before it opens the next. Use num_gpus_per_learner=1{_shared_advice(config)}."
        )
    if config.engine != "vllm" or "kv_cache_memory_bytes" in config.engine_config:
        return
    engines = Counter(given.get("env runner", []))
    together = max(engines.values(), default=0)
    share = config.engine_config.get("gpu_memory_utilization", VLLM_MEMORY_SHARE)
    if together > 1 and together * share > 1:
        config._value_error(
            f"`num_gpus_per_env_runner` ({config.num_gpus_per_env_runner:g}) puts {together} vLLM "
            f"engines on one GPU, each with {share:g} of its memory "
            "(`gpu_memory_utilization` in engine_config). Use num_gpus_per_env_runner=1, or 0.51 "
            "to share each GPU with a learner, or lower `gpu_memory_utilization`."
        )


def _shared_advice(config: Settings) -> str:
    if config.num_env_runners >= config.num_learners:
        return f", or, to share each GPU with an env runner, {ONE_OF_EACH}"
    return ", or 0.51 to leave the rest of each GPU to others"


def shared_by_learners(places: Sequence[Place]) -> str | None:
    """What learners are on the same GPU.

    Args:
        places: All learners.

    Returns:
        A sentence with two of them; None if each has GPUs of its own.
    """
    users: dict[tuple[str, str], str] = {}
    for place in places:
        for gpu in place.gpus:
            other = users.setdefault((place.node, gpu), place.name)
            if other != place.name:
                return f"{other} and {place.name} are both on GPU {gpu} of node {place.node}"
    return None


def unused(places: Sequence[Place]) -> list[str]:
    """Processes that have a GPU from Ray and run on the CPU."""
    return [
        f"{place.name} (GPU {', '.join(place.gpus)} of node {place.node})"
        for place in places
        if place.gpus and place.device == "cpu"
    ]


def idle_gpus(config: Settings, num_gpus: float, *, samples: bool) -> str | None:
    """What runs on CPUs although there are GPUs.

    Args:
        config: Validated settings.
        num_gpus: GPUs that there are.
        samples: Whether an engine is used at all.

    Returns:
        A line with the settings that change it; None if every part uses a GPU or there is none.
    """
    if not num_gpus:
        return None
    parts: list[str] = []
    if not config.num_gpus_per_learner:
        where = "" if config.num_learners else " in the main process"
        parts.append(f"learning{where} (`num_gpus_per_learner` is 0)")
    if samples and config.num_env_runners and not config.num_gpus_per_env_runner:
        parts.append("sampling (`num_gpus_per_env_runner` is 0)")
    if samples and not config.num_env_runners and config.num_learners:
        parts.append("sampling in the main process (`num_env_runners` is 0)")
    if not parts:
        return None
    there = "There is a GPU" if num_gpus == 1 else f"There are {num_gpus:g} GPUs"
    verb = "runs" if len(parts) == 1 else "run"
    return (
        f"{there}, but {' and '.join(parts)} {verb} on the CPU. Use "
        "config.learners(num_gpus_per_learner=1) and config.env_runners(num_env_runners=1, "
        f"num_gpus_per_env_runner=1), or for one of each on a GPU {ONE_OF_EACH}."
    )


def visible_gpu(environ: Mapping[str, str], index: int) -> str:
    """The node's number of a GPU that torch counts as `index` in a process.

    Args:
        environ: The process's environment.
        index: Torch's number.
    """
    visible: Any = environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return visible[index].strip() if index < len(visible) and visible[index] else str(index)
