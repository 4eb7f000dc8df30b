"""LoRA (arXiv 2106.09685) by peft: settings, names and files of adapters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from prefix_rft_rllib.basics.ranges import whole

REFUSED = {
    "lora_dropout": "has no effect: log probabilities have no dropout",
    "modules_to_save": "would train weights that are no adapters",
    "trainable_token_indices": "would train weights that are no adapters",
    "bias": "would train weights that are no adapters",
    "target_parameters": "is not supported: name modules in `target_modules`",
    "layer_replication": "would change the model that the engine runs",
    "inference_mode": "would train nothing",
}
"""Settings of `LoraConfig` that must stay at their default, and why."""
KEEP_BASE = (True, False, "gaussian", "orthogonal")
"""Initialisations that leave the base model as it is."""


def lora_config(settings: Mapping[str, Any]) -> Any:
    """Settings as peft's configuration.

    Args:
        settings: Keyword arguments of `LoraConfig`.

    Returns:
        A `LoraConfig` for causal language models.

    Raises:
        ValueError: If peft is not installed, does not know a setting, or a setting is refused.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ValueError(
            "`lora` needs the package peft: pip install 'prefix_rft_rllib[lora]'."
        ) from error
    known = inspect.signature(LoraConfig.__init__).parameters
    for name, value in settings.items():
        if name not in known:
            raise ValueError(
                f"`lora` has the unknown setting {name!r}. It takes the keyword arguments of "
                f"peft's LoraConfig, such as r, lora_alpha, target_modules."
            )
        if name in REFUSED and value != known[name].default:
            raise ValueError(f"`lora`: {name}={value!r} {REFUSED[name]}. Leave it out.")
    initialisation = settings.get("init_lora_weights", True)
    if initialisation not in KEEP_BASE:
        raise ValueError(
            f"`lora`: init_lora_weights={initialisation!r} changes the base model, which is the "
            f"reference and is not in checkpoints. Allowed: {KEEP_BASE}."
        )
    whole(1).check("lora['r']", settings.get("r", 8))
    try:
        return LoraConfig(**{"task_type": "CAUSAL_LM", **settings})
    except (TypeError, ValueError) as error:
        raise ValueError(f"`lora` ({dict(settings)!r}) is refused by peft: {error}") from error


def add_adapters(lm: Any, config: Any) -> None:
    """Put adapters into a model and switch them on, by peft alone.

    transformers' own `add_adapter` does the same, and refuses every release of peft that is older
    than what its loader of adapters needs. That loader is not used here.

    Args:
        lm: A causal LM; changed in place.
        config: A `LoraConfig`; the model's name is written into it.

    Raises:
        ValueError: If the configuration does not fit the model.
    """
    from peft import inject_adapter_in_model

    config.base_model_name_or_path = lm.name_or_path
    inject_adapter_in_model(config, lm)


def switch_adapters(lm: Any, *, on: bool) -> None:
    """Let a model compute with its adapters, or as if it had none.

    Args:
        lm: A causal LM that went through `add_adapters`.
        on: Whether the adapters count.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in lm.modules():
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(enabled=on)


def is_adapter(name: str) -> bool:
    """Whether the weight of this name belongs to an adapter."""
    return ".lora_" in name


def save_adapter(directory: Path, config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Write an adapter in PEFT form, for `PeftModel.from_pretrained`.

    Args:
        directory: Where to; made if missing.
        config: The `LoraConfig` that the model was given.
        tensors: Weights of the adapter by name, on the CPU.
    """
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(directory))
    named = {
        f"base_model.model.{name.replace('.default', '')}": value.contiguous()
        for name, value in tensors.items()
    }
    save_file(named, directory / "adapter_model.safetensors")
