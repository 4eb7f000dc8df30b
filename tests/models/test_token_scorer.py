"""Models run padded or packed, with and without a plain head, with activations recomputed."""

import pytest
import torch
from transformers import (
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
)

from prefix_rft_rllib.core.tokens import Region
from prefix_rft_rllib.learners.connectors.add_tokens_from_episodes_to_batch import token_columns_of
from prefix_rft_rllib.models import causal_lm
from prefix_rft_rllib.models.causal_lm import (
    check_reads_packed_rows,
    checkpoint_activations,
    has_plain_head,
    layers_of,
)
from prefix_rft_rllib.models.token_scorer import TokenScorer
from tests.learners.torch.learners import NUM_IDS, make_rows
from tests.random_models import SIZES, random_lm, vary_vectors

TEMPERATURE = 0.7
SMALL = SIZES | {
    "vocab_size": NUM_IDS,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
GPT2 = {"vocab_size": NUM_IDS, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
PLAIN_HEAD: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SMALL, tie_word_embeddings=False),
    "qwen2_tied": Qwen2Config(**SMALL, tie_word_embeddings=True),
    # Learned positions; dropout of 0.1 everywhere, GPT-2's own default.
    "gpt2": GPT2Config(**GPT2, initializer_range=0.3),
    "mistral_sliding_window": MistralConfig(**SMALL, sliding_window=4),
}
OTHER_HEAD: dict[str, PretrainedConfig] = {
    "gemma2_softcapping": Gemma2Config(
        **SMALL, head_dim=4, final_logit_softcapping=1.0, sliding_window=4
    ),
    "cohere_logit_scale": CohereConfig(**SMALL, logit_scale=0.25),
    "granite_logits_scaling": GraniteConfig(**SMALL, logits_scaling=4.0),
}
CONFIGS = PLAIN_HEAD | OTHER_HEAD
# Rows of 1 to 40 tokens behind the prompt.
PICTURES = ["xxxxpprrrrr", "xr", "xx" + "d" * 40, "xxxxxxxxr", "x" * 12 + "ppp" + "r" * 20]


def build_lm(name, **changes):
    config = CONFIGS[name].__class__.from_dict({**CONFIGS[name].to_dict(), **changes})
    return vary_vectors(random_lm(config), 0.2)


def scorer_of(lm, *, packing=None, compute_dtype="float32"):
    return TokenScorer(lm, temperature=TEMPERATURE, compute_dtype=compute_dtype, packing=packing)


def batch_of(pictures=PICTURES):
    columns = token_columns_of(make_rows(pictures, [0.0] * len(pictures)))
    return columns.input_ids, columns.region


@torch.no_grad()
def row_by_row(lm, input_ids, region):
    """Each row alone and unpadded, from the model's own logits; 0 at prompt and padding."""
    logps, entropies = torch.zeros(2, *input_ids.shape)
    for row, (ids, codes) in enumerate(zip(input_ids, region, strict=True)):
        length = int((codes != Region.PADDING).sum())
        table = torch.log_softmax(lm(ids[None, :length]).logits[0] / TEMPERATURE, dim=-1)
        for t in range(1, length):
            if codes[t] != Region.PROMPT:
                logps[row, t] = table[t - 1, ids[t]]
                entropies[row, t] = torch.distributions.Categorical(logits=table[t - 1]).entropy()
    return logps, entropies


def values_and_gradients(scorer, input_ids, region):
    """Log probabilities, entropies, and gradients of a random weighted sum of both."""
    logp, entropy = scorer(input_ids, region, entropy_gradient=True)
    weights = torch.randn(2, *logp.shape, generator=torch.Generator().manual_seed(3))
    scorer.zero_grad()
    (weights[0] * logp + weights[1] * entropy).sum().backward()
    return logp, entropy, {n: p.grad.clone() for n, p in scorer.lm.named_parameters()}


def assert_close(actual, expected, tolerance=1e-5):
    """Values within an absolute tolerance, gradients within one relative to the largest."""
    for value, reference in zip(actual[:2], expected[:2], strict=True):
        torch.testing.assert_close(value, reference, rtol=0, atol=tolerance)
    scale = max(float(g.abs().max()) for g in expected[2].values())
    for name, gradient in expected[2].items():
        torch.testing.assert_close(
            actual[2][name], gradient, rtol=0, atol=tolerance * scale, msg=name
        )


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_log_probabilities_are_those_of_the_models_own_logits(name, packing):
    lm = build_lm(name)
    expected = row_by_row(lm, *batch_of())
    actual = scorer_of(lm, packing=packing)(*batch_of())
    for value, reference in zip(actual, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_rows_are_as_padded_ones_in_values_and_gradients(name):
    lm = build_lm(name)
    padded, packed = (
        values_and_gradients(scorer_of(lm, packing=packing), *batch_of())
        for packing in (False, True)
    )
    assert_close(packed, padded)


@pytest.mark.parametrize("name", PLAIN_HEAD)
def test_negative_control_packed_rows_without_positions_see_each_other(name, monkeypatch):
    def run_together(model, input_ids, attends, *, packed):
        return model(input_ids[attends][None], use_cache=False)

    lm = build_lm(name)
    scorer = scorer_of(lm, packing=True)
    padded = values_and_gradients(scorer_of(lm, packing=False), *batch_of())
    monkeypatch.setattr("prefix_rft_rllib.models.token_scorer.run_rows", run_together)
    with pytest.raises((AssertionError, IndexError)):  # GPT-2 has 64 positions
        assert_close(values_and_gradients(scorer, *batch_of()), padded)


def test_a_model_that_mixes_packed_rows_up_is_refused(monkeypatch):
    lm = build_lm("llama")
    check_reads_packed_rows(lm)
    forward = lm.forward
    monkeypatch.setattr(lm, "forward", lambda ids, position_ids=None, **kw: forward(ids, **kw))
    with pytest.raises(ValueError, match="packing=True"):
        scorer_of(lm, packing=True)


def test_rows_are_packed_by_default_only_where_attention_has_kernels_for_it(monkeypatch):
    packs = []
    original = causal_lm.run_rows
    monkeypatch.setattr(
        "prefix_rft_rllib.models.token_scorer.run_rows",
        lambda *args, packed: packs.append(packed) or original(*args, packed=packed),
    )
    lm = build_lm("llama")
    scorer_of(lm)(*batch_of())
    monkeypatch.setattr(causal_lm, "PACKING_ATTENTION", (lm.config._attn_implementation,))
    scorer_of(lm)(*batch_of())
    scorer_of(lm, packing=False)(*batch_of())
    assert packs == [False, True, False]


@pytest.mark.parametrize("name", CONFIGS)
def test_heads_that_change_logits_are_found(name):
    lm = build_lm(name)
    before = lm.config._attn_implementation
    assert has_plain_head(lm) == (name in PLAIN_HEAD)
    assert lm.config._attn_implementation == before


@pytest.mark.parametrize("name", OTHER_HEAD)
def test_negative_control_such_a_head_taken_for_plain_is_wrong(name, monkeypatch):
    lm = build_lm(name)
    monkeypatch.setattr("prefix_rft_rllib.models.token_scorer.has_plain_head", lambda lm: True)
    actual, _ = scorer_of(lm)(*batch_of())
    assert (actual - row_by_row(lm, *batch_of())[0]).abs().max() > 1e-2


def test_states_and_logits_give_the_same_in_bfloat16_too(monkeypatch):
    lm = build_lm("qwen2_tied")
    ours = values_and_gradients(scorer_of(lm, compute_dtype="bfloat16"), *batch_of())
    monkeypatch.setattr("prefix_rft_rllib.models.token_scorer.has_plain_head", lambda lm: False)
    plain = values_and_gradients(scorer_of(lm, compute_dtype="bfloat16"), *batch_of())
    exact = values_and_gradients(scorer_of(lm), *batch_of())
    # The same logits of 8 bits; gradients are rounded at other places.
    torch.testing.assert_close(ours[0], plain[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours[1], plain[1], rtol=0, atol=1e-5)
    scale = max(float(g.abs().max()) for g in exact[2].values())
    for name, gradient in exact[2].items():
        error = float((ours[2][name] - gradient).abs().max())
        assert error <= 0.1 * scale, name


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("name", ["llama", "qwen2_tied", "gpt2", "gemma2_softcapping"])
def test_recomputed_activations_give_identical_gradients(name, packing):
    kept = values_and_gradients(scorer_of(build_lm(name), packing=packing), *batch_of())
    lm = build_lm(name)
    checkpoint_activations(lm)
    recomputed = values_and_gradients(scorer_of(lm, packing=packing).train(), *batch_of())
    for value, reference in zip(recomputed[:2], kept[:2], strict=True):
        assert torch.equal(value, reference)
    for name, gradient in kept[2].items():
        assert torch.equal(recomputed[2][name], gradient), name


@pytest.mark.parametrize("recomputes", [False, True])
def test_layers_really_run_again_in_the_backward_pass(recomputes):
    lm = build_lm("gpt2")
    if recomputes:
        checkpoint_activations(lm)
    calls = []
    for layer in layers_of(lm):
        layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    scorer = scorer_of(lm).train()
    calls.clear()  # of the look at the head
    logp, _ = scorer(*batch_of())
    assert len(calls) == 2
    logp.sum().backward()
    assert len(calls) == (4 if recomputes else 2)
    calls.clear()
    with torch.no_grad():
        scorer(*batch_of())
    assert len(calls) == 2


def test_dropout_stays_off_with_recomputed_activations():
    lm = build_lm("gpt2")
    expected = scorer_of(lm)(*batch_of())[0]
    checkpoint_activations(lm)
    scorer = scorer_of(lm).train()
    assert torch.equal(scorer(*batch_of())[0], expected)
    # Negative control: were the parts of the layers in training mode too, it would show.
    lm.train()
    assert not torch.equal(scorer(*batch_of())[0], expected)


def test_a_model_without_recomputation_is_refused():
    lm = build_lm("llama")
    lm.supports_gradient_checkpointing = False
    with pytest.raises(ValueError, match="activation_checkpointing"):
        checkpoint_activations(lm)


def test_a_batch_without_targets_has_a_gradient_of_zero():
    scorer = scorer_of(build_lm("llama"))
    input_ids, region = batch_of(["xxxr", "xxxxx"])
    logp, entropy, gradients = values_and_gradients(scorer, input_ids[1:], region[1:])
    assert not logp.any()
    assert not entropy.any()
    assert not any(gradient.any() for gradient in gradients.values())
