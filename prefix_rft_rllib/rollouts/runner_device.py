"""The device of the engine in an env runner's process."""

from typing import Any

import ray


def device_option(config: Any) -> dict[str, str]:
    """What to tell the transformers engine about its device.

    An engine uses a GPU only if its process has one. Torch cannot say so: it sees the GPUs of the
    machine also in an actor that Ray gave none.

    Args:
        config: A `PrefixRFTConfig`.

    Returns:
        The option `device`; nothing where the process has a GPU from Ray, which is then the first
        one that torch sees, and nothing for engines without that option.
    """
    if config.engine != "transformers":
        return {}
    if ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None:
        has_gpu = bool(ray.get_runtime_context().get_accelerator_ids().get("GPU"))
        return {} if has_gpu else {"device": "cpu"}
    # In the driver Ray gives out no GPUs: the engine follows the learner next to it.
    if config.num_learners == 0 and config.num_gpus_per_learner > 0:
        return {"device": f"cuda:{config.local_gpu_idx}"}
    return {"device": "cpu"}
