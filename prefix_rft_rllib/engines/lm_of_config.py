"""A causal LM from its configuration alone, whose weights are still to come."""

import copy
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig


def lm_of_config(
    config: PretrainedConfig,
    *,
    dtype: torch.dtype | None = None,
    attn_implementation: str | None = None,
) -> Any:
    """Build a causal LM, on the device that torch makes new tensors on.

    Its weights are random and to be overwritten: torch's generator of the CPU stays as it was.

    Args:
        config: The model's configuration; not changed.
        dtype: Of the weights; None for the configuration's.
        attn_implementation: Attention of transformers; None for the model's own choice.

    Returns:
        The model, in training mode.

    Raises:
        ImportError, ValueError: If the model does not have that attention here.
    """
    given = {"dtype": dtype, "attn_implementation": attn_implementation}
    settings = {name: value for name, value in given.items() if value is not None}
    with torch.random.fork_rng(devices=[]):
        # `from_config` writes dtype and attention into the configuration it is given.
        return AutoModelForCausalLM.from_config(copy.deepcopy(config), **settings)


def outline_of_config(config: PretrainedConfig) -> Any:
    """The model without values: names, shapes and ties of its weights, on the meta device.

    Args:
        config: The model's configuration; not changed.

    Returns:
        The model.
    """
    with torch.device("meta"):
        return lm_of_config(config)
