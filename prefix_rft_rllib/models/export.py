"""The trained model as an ordinary Hugging Face directory."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prefix_rft_rllib.envs.prompts.end_tokens import GENERATION_CONFIG_FILE, declared_end_ids
from prefix_rft_rllib.models.progress_bars import no_progress_bars
from prefix_rft_rllib.models.state_arrays import state_to_tensors

logger = logging.getLogger(__name__)

TOKENIZER_FILES = (
    *("tokenizer*.json", "*.model", "vocab.*", "merges.txt", "chat_template*"),
    *("special_tokens_map.json", "added_tokens.json"),
)
"""Files that a tokenizer may be made of."""
ADAPTER_DIRECTORY = "adapter"
"""Where the export of a model trained with `lora` has the adapter alone."""


def save_pretrained(
    model_directory: str,
    weights: dict[str, np.ndarray],
    tokenizer_directory: str,
    end_ids: Sequence[int],
    path: str | Path,
) -> Path:
    """Write configuration, weights, generation settings and tokenizer.

    Args:
        model_directory: The model that was trained. Its configuration is kept, and its generation
            settings as they are, end tokens included.
        weights: State dict of the trained model, as the RLModule's `get_state` gives it.
        tokenizer_directory: The tokenizer used in training. Its files are copied: those that
            transformers writes anew may read another way (`legacy` of Llama 2's is lost).
        end_ids: The tokens that ended a response in training; written if the model's files name
            none.
        path: Directory to write to; made if missing.

    Returns:
        The directory.
    """
    from transformers import AutoModelForCausalLM

    from prefix_rft_rllib.models.causal_lm import FILES_ONLY, save_lm

    # float32 like the trained weights: rounded to the original's type, small steps would be lost.
    with no_progress_bars():
        model: Any = AutoModelForCausalLM.from_pretrained(
            model_directory, dtype=torch.float32, **FILES_ONLY
        )
    model.load_state_dict(state_to_tensors(weights))
    declared = declared_end_ids(model_directory)
    if not declared:
        model.generation_config.eos_token_id = list(end_ids) if len(end_ids) > 1 else end_ids[0]
    elif not set(end_ids) <= set(declared):
        logger.warning(
            "Responses in training ended with the tokens %s; the model's files name %s, and so "
            "does the exported model. Set `eos_token_id` in %s there to stop at all of them.",
            list(end_ids),
            list(declared),
            GENERATION_CONFIG_FILE,
        )
    directory = Path(path)
    save_lm(model, directory)
    given = Path(model_directory) / GENERATION_CONFIG_FILE
    if declared and given.is_file():
        shutil.copyfile(given, directory / GENERATION_CONFIG_FILE)
    for pattern in TOKENIZER_FILES:
        for file in Path(tokenizer_directory).glob(pattern):
            shutil.copyfile(file, directory / file.name)
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
    from prefix_rft_rllib.models import lora

    directory = Path(path) / ADAPTER_DIRECTORY
    lora.save_adapter(directory, config, state_to_tensors(weights))
    return directory
