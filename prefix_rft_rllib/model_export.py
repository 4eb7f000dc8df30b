"""The trained model as an ordinary Hugging Face directory."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from prefix_rft_rllib.core.state_arrays import state_to_tensors


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
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    model.load_state_dict(state_to_tensors(weights))
    # In training a response ended with this token, whatever the original model stops at.
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    directory = Path(path)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
