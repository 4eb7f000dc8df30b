"""A random Llama of a given size with the shipped tokenizer, as a model directory."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from prefix_rft_rllib.envs import TOY_BASE_MODEL


def save_random_model(directory: Path, hidden_size: int, num_layers: int) -> int:
    """Write model and tokenizer.

    Args:
        directory: Where to; made if missing.
        hidden_size: A multiple of 64, the size of a head.
        num_layers: Number of layers.

    Returns:
        The number of parameters.
    """
    tokenizer = AutoTokenizer.from_pretrained(TOY_BASE_MODEL)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 64,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return model.num_parameters()


def write_csv(path: Path | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of equal keys, or print them if there is no path."""
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
