"""Random models as model directories with the shipped tokenizer, and CSV files."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
)

from prefix_rft_rllib.envs import TOY_BASE_MODEL

QWEN_SHAPES: dict[str, dict[str, int]] = {
    "small": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "0.5B": {
        "vocab_size": 151_936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
    },
    "1.5B": {
        "vocab_size": 151_936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
    },
}
"""The shapes of Qwen2.5, and one for a test."""


def qwen_config(name: str) -> PretrainedConfig:
    """A model of `QWEN_SHAPES`."""
    sizes = {"vocab_size": 320, "intermediate_size": 256, **QWEN_SHAPES[name]}
    return Qwen2Config(
        **sizes, num_key_value_heads=2, max_position_embeddings=32768, tie_word_embeddings=True
    )


def llama_config(hidden_size: int, num_layers: int) -> PretrainedConfig:
    """A Llama with heads of 64 and the vocabulary of the shipped tokenizer."""
    return LlamaConfig(
        vocab_size=320,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 64,
        tie_word_embeddings=True,
    )


def save_random_model(directory: Path, config: PretrainedConfig) -> int:
    """Write a random model and the shipped tokenizer.

    Args:
        directory: Where to; made if missing.
        config: The model's configuration; gets the tokenizer's special tokens.

    Returns:
        The number of parameters.
    """
    tokenizer = AutoTokenizer.from_pretrained(TOY_BASE_MODEL)
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    config.bos_token_id = None
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return model.num_parameters()


def write_csv(path: Path | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of equal keys, if there is a path."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def report(path: Path | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of equal keys, and write them if there is a path."""
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    write_csv(path, rows)
