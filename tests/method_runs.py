"""Short runs of every method, with settings that show within them what the method is about."""

import inspect
from collections.abc import Callable
from typing import Any

from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.methods import METHODS
from tests.small_configs import SELDOM_RIGHT

NUM_ITERATIONS = 4
METHOD_CONFIGS: dict[str, dict[str, Any]] = {
    name: {"num_schedule_iterations": NUM_ITERATIONS}
    for name, function in METHODS.items()
    if "num_schedule_iterations" in inspect.signature(function).parameters
} | {
    # Two iterations of SFT, then two of RFT.
    "sft_rft": {"num_sft_iterations": 2, "sft_lr": 1e-3, "sft_warmup_fraction": 0.5},
    # Hints for three iterations, then none.
    "uft": {"num_schedule_iterations": 3},
    "relift": {"buffer_size": 3, "imitation_lr": 5e-3},
    # mu is 0, then 0.5, and falls.
    "chord": {"num_warmup_iterations": 1, "num_decay_iterations": 3},
}
ENV_CONFIGS: dict[str, dict[str, Any]] = {"relift": {"verifier": SELDOM_RIGHT}}


def method_config(
    make_config: Callable[..., PrefixRFTConfig], name: str, **training: Any
) -> PrefixRFTConfig:
    """The small task with a method; further settings may take another method's place."""
    settings = {"method": name, "method_config": METHOD_CONFIGS.get(name, {}), **training}
    return make_config(ENV_CONFIGS.get(name), **settings)
