"""Whether numbers of processes, and what each asks for, are numbers that Ray can count."""

from typing import Any

from prefix_rft_rllib.basics.ranges import mapping, real, whole
from prefix_rft_rllib.settings.placement import WHOLE
from prefix_rft_rllib.settings.settings import Settings

_COUNTS = ("num_env_runners", "num_learners", "evaluation_num_env_runners", "local_gpu_idx")
_AMOUNTS = (
    *("num_cpus_for_main_process", "num_cpus_per_env_runner", "num_cpus_per_learner"),
    *("num_gpus_per_env_runner", "num_gpus_per_learner"),
)
_CUSTOM = (
    *("custom_resources_for_main_process", "custom_resources_per_env_runner"),
    "custom_resources_per_learner",
)


def check_resource_amounts(config: Settings) -> None:
    """Check counts of processes and amounts of resources, each by itself.

    Args:
        config: The settings.

    Raises:
        ValueError: Naming the setting, its value and what is allowed.
    """
    for name in _COUNTS:
        config.check_value(f"`{name}`", getattr(config, name), whole(0))
    for name in _AMOUNTS:
        value = getattr(config, name)
        if not (name == "num_cpus_per_learner" and value == "auto"):
            _check_amount(config, f"`{name}`", value)
    for name in _CUSTOM:
        _check_custom(config, name, getattr(config, name))


def _check_custom(config: Settings, name: str, value: Any) -> None:
    if value is None and name == "custom_resources_per_learner":
        return  # RLlib's default
    config.check_value(f"`{name}`", value, mapping("resources' names to amounts"))
    for resource, amount in value.items():
        if resource in ("CPU", "GPU"):
            config._value_error(
                f"`{name}` has {resource!r}: CPUs and GPUs have settings of their own, "
                f"{', '.join(f'`{setting}`' for setting in _AMOUNTS)}."
            )
        if resource == "memory" and name == "custom_resources_per_env_runner":
            config._value_error(
                f"`{name}` has 'memory': Ray takes no memory among an actor's custom resources. "
                "Leave it out, or ask for a resource that your nodes have under another name."
            )
        _check_amount(config, f"`{name}[{resource!r}]`", amount)


def _check_amount(config: Settings, what: str, value: Any) -> None:
    config.check_value(what, value, real(0))
    if 0 < value < 1 / WHOLE:
        config._value_error(
            f"{what} ({value!r}) is less than Ray counts: use 0, or at least {1 / WHOLE:g}."
        )
