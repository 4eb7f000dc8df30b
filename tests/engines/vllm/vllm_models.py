"""Tiny models that vLLM runs on CPUs (heads of 32), and what tests of its engine share."""

import importlib.util
import os
from collections.abc import Iterable

import pytest
import torch
from transformers import PreTrainedModel, Qwen2Config

from prefix_rft_rllib.engines.engine import Generation, GenerationRequest
from tests.engines.models import EOS, VOCAB_SIZE, unpadded_logps
from tests.random_models import SIZES, random_lm, vary_vectors

BLOCK_SIZE = 32
OTHER_EOS = 7
"""The end token of the models' configuration, which is none of the engine's."""

OPTIONS = {
    "dtype": "float32",
    "enforce_eager": True,
    "block_size": BLOCK_SIZE,
    "kv_cache_memory_bytes": 8 * 2**20,  # 8192 tokens
}
TOLERANCE = 1e-4
"""Largest difference of log-probabilities in float32; others' weights differ by more than 1."""


def require_vllm() -> None:
    """Skip where vLLM is not installed; in continuous integration (CI=true) fail instead."""
    if importlib.util.find_spec("vllm") is not None:
        return
    reason = "vLLM is not installed (requirements-cpu.txt, or the extra [vllm] for GPUs)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def vllm_config(*, tied: bool = True) -> Qwen2Config:
    sizes = SIZES | {"hidden_size": 128, "intermediate_size": 96, "max_position_embeddings": 256}
    return Qwen2Config(
        **sizes,
        vocab_size=VOCAB_SIZE,
        initializer_range=0.1,
        tie_word_embeddings=tied,
        eos_token_id=OTHER_EOS,
    )


def vllm_model(*, tied: bool = True, seed: int = 0) -> PreTrainedModel:
    return vary_vectors(random_lm(vllm_config(tied=tied), seed=seed), 0.1)


def random_prompts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(2, VOCAB_SIZE, (n,), generator=generator).tolist() for n in lengths]


def logp_errors(
    model: PreTrainedModel,
    requests: Iterable[GenerationRequest],
    generations: Iterable[Generation],
) -> torch.Tensor:
    """Of all tokens, |the engine's log-probability - that of an unpadded forward|."""
    errors = []
    for request, generation in zip(requests, generations, strict=True):
        assert len(generation.logps) == len(generation.token_ids) > 0
        assert (generation.token_ids[-1] == EOS) == (generation.finish_reason == "stop")
        expected = unpadded_logps(model, request, generation)
        errors += [abs(a - b) for a, b in zip(generation.logps, expected, strict=True)]
    return torch.tensor(errors)


def mixed_requests(num: int = 24) -> list[GenerationRequest]:
    """Prompts shorter and longer than blocks, shared and own ones, each row its own settings."""
    prompts = random_prompts(9, 70, 2, BLOCK_SIZE, 100, 1)
    return [
        GenerationRequest(
            prompts[row % len(prompts)],
            max_new_tokens=20 - row % 4,
            temperature=(1.0, 0.7, 1.5, 0.0)[row % 4],
            top_p=(1.0, 0.8)[row // 2 % 2],
            seed=100 + row,
        )
        for row in range(num)
    ]


def tokens(generations) -> list[list[int]]:
    return [generation.token_ids for generation in generations]
