"""The models and problems of the comparison, written as workload directories."""

import json
import math
import random
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from workload import SILENT, Workload

from prefix_rft_rllib.envs import TOY_BASE_MODEL
from prefix_rft_rllib.envs.toy.toy_arithmetic import draw_problem

sys.path.append(str(Path(__file__).resolve().parents[1]))
from random_model import llama_config, random_lm, shift_logit

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
    config = llama_config(hidden_size, num_layers)
    config.pad_token_id, config.bos_token_id = pad_token_id, None
    lm = random_lm(config)
    shift_logit(lm, eos_token_id, -5.0 * math.sqrt(hidden_size))
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
