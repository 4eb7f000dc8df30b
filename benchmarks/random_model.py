"""Random models, with the shipped tokenizer or without; rates in turns; CSV files."""

import csv
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from prefix_rft_rllib.envs import TOY_BASE_MODEL

QWEN_SHAPES: dict[str, dict[str, int]] = {
    "small": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "10M": {
        "vocab_size": 8192,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 9,
        "num_attention_heads": 4,
    },
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
"""The shapes of Qwen2.5, one for a test, and one for CPUs with a fifth of it in its embedding."""


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


def random_lm(config: PretrainedConfig) -> PreTrainedModel:
    """A model with random weights, the same in every process."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


@torch.no_grad()
def shift_logit(lm: PreTrainedModel, token: int, shift: float) -> None:
    """Add to one token's logit at all places, about the same at each.

    The first residual channel is made to dominate all others, so that the final norm makes it about
    sqrt(hidden_size): the token's weight there decides about its logit.

    Args:
        lm: A random model with tied embeddings, changed in place.
        token: The token's id.
        shift: What its logit gets beyond those of the others.
    """
    embedding = lm.get_input_embeddings().weight
    embedding[:, 0] = 1.0
    embedding[token, 0] += shift / math.sqrt(lm.config.hidden_size)


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
    model = random_lm(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return model.num_parameters()


def measure(
    contenders: Mapping[str, Callable[[], int]], num_repetitions: int
) -> dict[str, list[float]]:
    """Tokens per second of each repetition, in turns; a first round warms up.

    Args:
        contenders: What is measured, by name; each returns how many tokens it made.
        num_repetitions: How often each is measured.

    Returns:
        The rates by name.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for repetition in range(num_repetitions + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            num_tokens = run()
            if repetition > 0:
                rates[name].append(num_tokens / (time.perf_counter() - start))
    return rates


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
