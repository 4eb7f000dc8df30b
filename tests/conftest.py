"""Fixtures shared by all folders: a tiny random model, and a config that uses it."""

import signal

import pytest
import torch
from transformers import LlamaConfig

from prefix_rft_rllib.envs.toy.tokenizer import build_toy_tokenizer
from prefix_rft_rllib.prefix_rft_config import PrefixRFTConfig
from tests.random_models import SIZES, random_lm

# Tiny models: threads cost more than they bring, and results do not depend on the machine.
torch.set_num_threads(1)

# A shell's background jobs ignore Ctrl-C, and processes that they start do too.
signal.signal(signal.SIGINT, signal.default_int_handler)

NUM_POSITIONS = 128


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory) -> str:
    """A random two-layer Llama with the toy task's tokenizer, saved as a model directory."""
    directory = str(tmp_path_factory.mktemp("tiny_model"))
    tokenizer = build_toy_tokenizer(NUM_POSITIONS)
    config = LlamaConfig(
        **SIZES,
        vocab_size=len(tokenizer),
        max_position_embeddings=NUM_POSITIONS,
        # Large: entropies then differ from token to token.
        initializer_range=0.5,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    random_lm(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def tiny_config(tiny_model_dir, tmp_path) -> PrefixRFTConfig:
    """A small run on the toy task: everything in this process, nothing shown."""
    return (
        PrefixRFTConfig()
        .environment(
            "PrefixRFT/ToyArithmetic-v0",
            env_config={
                "data_config": {"num_problems": 6, "min_clauses": 1, "max_clauses": 2, "seed": 0},
                "max_prompt_tokens": 64,
                "max_response_tokens": 40,
            },
        )
        .env_runners(num_env_runners=0)
        .training(
            model_path=tiny_model_dir,
            group_size=2,
            num_problems_per_iteration=2,
            num_problems_per_minibatch=1,
            lr=1e-3,
        )
        .reporting(run_dir=str(tmp_path / "run"), preflight=False, progress=False)
    )
