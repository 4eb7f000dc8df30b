"""The models and problems of the comparison, written as workload directories."""

import json
import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedModel
from workload import SILENT, Workload

from prefix_rft_rllib.envs import TOY_BASE_MODEL
from prefix_rft_rllib.envs.toy.toy_arithmetic import draw_problem

END_TOKEN = "<system>"
"""A token that the shipped model never learned to sample: no response ends early."""
RANDOM_SIZES = {"10M": (256, 10)}
"""Hidden size and number of layers of the random models by name."""
MODELS = ("default", *RANDOM_SIZES)
WORKLOADS = {"every_row": 0.0, "half_silent": 0.5}
"""Share of the problems whose rollouts all have the same reward, so that no row has weight."""


def write_workload(directory: Path, model: str, rewards: str, num_new_tokens: int) -> Workload:
    """Write model, tokenizer and problems.

    Args:
        directory: Where to; made if missing.
        model: A name in `MODELS`: the shipped model, or a random Llama with its tokenizer.
        rewards: A name in `WORKLOADS`.
        num_new_tokens: Length of every response.

    Returns:
        The workload.
    """
    workload = Workload(directory=directory, num_new_tokens=num_new_tokens)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(TOY_BASE_MODEL)
    tokenizer.eos_token = END_TOKEN
    tokenizer.save_pretrained(workload.model_dir)
    lm = _model(model, tokenizer.eos_token_id, tokenizer.pad_token_id)
    lm.config.eos_token_id = lm.generation_config.eos_token_id = tokenizer.eos_token_id
    lm.save_pretrained(workload.model_dir)
    _write_problems(workload, WORKLOADS[rewards])
    workload.save()
    return workload


def _model(name: str, eos_token_id: int, pad_token_id: int) -> PreTrainedModel:
    if name == "default":
        return AutoModelForCausalLM.from_pretrained(TOY_BASE_MODEL)
    hidden_size, num_layers = RANDOM_SIZES[name]
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 64,
        tie_word_embeddings=True,
        pad_token_id=pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config)
    # The first residual channel dominates all others, so the final norm makes it large, and the end
    # token's weight there sets its logit far below the others'.
    with torch.no_grad():
        embedding = lm.get_input_embeddings().weight
        embedding[:, 0] = 1.0
        embedding[eos_token_id, 0] = -4.0
    return lm


def _write_problems(workload: Workload, silent_share: float) -> None:
    rng = random.Random(0)
    num_silent = round(silent_share * workload.num_prompts)
    rows = [
        {
            "id": str(number),
            "prompt": draw_problem(rng, num_clauses=4).prompt,
            "answer": SILENT if number < num_silent else "hash",
        }
        for number in range(workload.num_prompts)
    ]
    workload.problems_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
