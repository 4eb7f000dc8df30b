"""A tiny model, a verifier that gives rewards to random text, and settings for algorithm tests."""

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.envs.toy_tokenizer import build_toy_tokenizer
from prefix_rft_rllib.envs.verifiers.verdict import Verdict

MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS = 64, 48
HALF_RIGHT = "tests.algorithm_fixtures:half_right"
BROKEN = "tests.algorithm_fixtures:broken"


def half_right(response: str, problem) -> Verdict:
    """Accept every second text, so that groups of an untrained model have signal."""
    return Verdict.CORRECT if sum(response.encode()) % 2 else Verdict.WRONG


def broken(response: str, problem) -> Verdict:
    raise RuntimeError("out of order")


@functools.cache
def tiny_model() -> str:
    """Directory of a random Llama of about 20,000 parameters with the toy tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    directory = Path(tempfile.mkdtemp(prefix="tiny_model_"))
    tokenizer = build_toy_tokenizer(256)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=256,
            # Wide enough for entropies that differ from token to token.
            initializer_range=0.3,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def toy_rows(num_problems: int, **changes: object) -> dict:
    """Generated problems whose demonstrations fit the tiny budget."""
    lengths = {"num_problems": num_problems, "min_clauses": 2, "max_clauses": 2, "seed": 0}
    return {"data": "toy_arithmetic", "data_config": {**lengths, **changes}}


def tiny_config(*, env_config: dict | None = None, **training: object) -> PrefixRFTConfig:
    """Prefix-RFT on 12 problems, 4 per iteration, in the driver."""
    return (
        PrefixRFTConfig()
        .environment(
            "PrefixRFT/Math-v0",
            env_config={
                **toy_rows(12),
                "max_prompt_tokens": MAX_PROMPT_TOKENS,
                "max_response_tokens": MAX_RESPONSE_TOKENS,
                "verifier": HALF_RIGHT,
                **(env_config or {}),
            },
        )
        .env_runners(num_env_runners=0)
        .learners(num_learners=0)
        .training(
            **{
                "model_path": tiny_model(),
                "method_config": {"num_schedule_iterations": 4},
                "group_size": 4,
                "num_problems_per_iteration": 4,
                "num_problems_per_minibatch": 2,
                "lr": 1e-2,
                **training,
            }
        )
        .reporting(progress=False, preflight=False)
        .debugging(seed=3, log_level="ERROR")
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster for the tests of one module."""
    ray.init(
        num_cpus=4,
        log_to_driver=False,
        include_dashboard=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
    )
    yield
    ray.shutdown()
