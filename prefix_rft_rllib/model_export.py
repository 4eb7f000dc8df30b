"""The trained model as an ordinary Hugging Face directory."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from prefix_rft_rllib.core.state_arrays import state_to_tensors
from prefix_rft_rllib.torch.progress_bars import no_progress_bars

ADAPTER_DIRECTORY = "adapter"
"""Where the export of a model trained with `lora` has the adapter alone."""


def save_pretrained(
    model_path: str, weights: dict[str, np.ndarray], tokenizer: Any, path: str | Path
) -> Path:
    """Write configuration, weights, generation settings and tokenizer.

    Args:
        model_path: The model that was trained; its configuration and generation settings are kept.
        weights: State dict of the trained model, as the RLModule's `get_state` gives it.
        tokenizer: The tokenizer used in training.
        path: Directory to write to; made if missing.

    Returns:
        The directory.
    """
    from transformers import AutoModelForCausalLM

    # float32 like the trained weights: rounded to the original's type, small steps would be lost.
    with no_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    model.load_state_dict(state_to_tensors(weights))
    # In training a response ended with this token, whatever the original model stops at.
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    directory = Path(path)
    with no_progress_bars():
        model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def save_adapter(config: Any, weights: dict[str, np.ndarray], path: str | Path) -> Path:
    """Write the adapter of a model trained with `lora` beside the merged model.

    Args:
        config: peft's `LoraConfig`, as the model was given it.
        weights: The adapter's weights, as the RLModule's `get_state` gives them.
        path: Directory of the merged model; the adapter gets a folder in it.

    Returns:
        The adapter's directory, for `PeftModel.from_pretrained`.
    """
    from prefix_rft_rllib.torch import lora

    directory = Path(path) / ADAPTER_DIRECTORY
    lora.save_adapter(directory, config, state_to_tensors(weights))
    return directory
