"""Tiny random models and a slow, unpadded reference for the engine tests."""

import pytest
import torch
from transformers import (
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from prefix_rft_rllib.engines.engine import Generation, GenerationRequest
from prefix_rft_rllib.engines.transformers.engine import TransformersEngine
from tests.random_models import SIZES, random_lm, vary_vectors

VOCAB_SIZE = 60
EOS = 1

_LLAMA_LIKE = SIZES | {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}

CONFIGS: dict[str, PretrainedConfig] = {
    "qwen2_tied": Qwen2Config(**_LLAMA_LIKE, tie_word_embeddings=True),
    "qwen2_untied": Qwen2Config(**_LLAMA_LIKE, tie_word_embeddings=False),
    "llama": LlamaConfig(**_LLAMA_LIKE),
    "gemma": GemmaConfig(**_LLAMA_LIKE, head_dim=8),
    "mistral_sliding_window": MistralConfig(**_LLAMA_LIKE, sliding_window=8),
    "gpt2_learned_positions": GPT2Config(
        vocab_size=VOCAB_SIZE, n_embd=32, n_layer=2, n_head=4, n_positions=128,
        initializer_range=0.2,
    ),
    "opt_offset_positions": OPTConfig(
        vocab_size=VOCAB_SIZE, hidden_size=32, num_hidden_layers=2, ffn_dim=48,
        num_attention_heads=4, max_position_embeddings=128, word_embed_proj_dim=32,
        init_std=0.2,
    ),
}  # fmt: skip


def build_model(name: str = "qwen2_tied", seed: int = 0) -> PreTrainedModel:
    return vary_vectors(random_lm(CONFIGS[name], seed=seed), 0.1)


def build_loaded_engine(model: PreTrainedModel, **options: object) -> TransformersEngine:
    engine = TransformersEngine(model.config, eos_token_ids=[EOS], device="cpu", **options)
    engine.load_weights(model.state_dict(), version=1)
    return engine


def mixed_requests(num: int = 12, max_new_tokens: int = 20) -> list[GenerationRequest]:
    """Prompts of several lengths, in shared and own prompts, each row with its own settings."""
    generator = torch.Generator().manual_seed(3)
    prompts = [
        torch.randint(2, VOCAB_SIZE, (length,), generator=generator).tolist()
        for length in (9, 2, 14, 1, 6)
    ]
    return [
        GenerationRequest(
            prompts[row % len(prompts)],
            max_new_tokens=max_new_tokens - row % 4,
            temperature=(1.0, 0.7, 1.5, 0.0)[row % 4],
            top_p=(1.0, 0.8)[row % 2],
            seed=100 + row,
        )
        for row in range(num)
    ]


@torch.no_grad()
def unpadded_logps(
    model: PreTrainedModel, request: GenerationRequest, generation: Generation
) -> list[float]:
    """Log-probabilities of the generated tokens by one forward of the sequence alone."""
    ids = torch.tensor([[*request.prompt_ids, *generation.token_ids]])
    start = len(request.prompt_ids)
    logits = model(ids, use_cache=False).logits[0, start - 1 : -1].double()
    logps = torch.log_softmax(logits / (request.temperature or 1.0), dim=-1)
    return [logps[i, token].item() for i, token in enumerate(generation.token_ids)]


def check_that_end_tokens_stop(engine, model, prompt, ends, *, tolerance):
    """Each end token stops some response and is its last; log-probs are right up to it."""
    requests = [GenerationRequest(prompt, 30, seed=seed) for seed in range(150)]
    generations = engine.generate(requests)
    assert {g.token_ids[-1] for g in generations if g.finish_reason == "stop"} == ends
    for request, generation in zip(requests, generations, strict=True):
        assert not ends & set(generation.token_ids[:-1])
        is_ended = generation.token_ids[-1] in ends
        assert generation.finish_reason == ("stop" if is_ended else "length")
        expected = unpadded_logps(model, request, generation)
        assert generation.logps == pytest.approx(expected, abs=tolerance)
