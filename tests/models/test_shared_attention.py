"""Rows that share their beginnings, run as a tree: values and gradients of rows that run alone."""

import copy
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    JambaConfig,
    Llama4TextConfig,
    MambaConfig,
    Qwen3Config,
)

from prefix_rft_rllib.core.tokens import Region, pad_rows
from prefix_rft_rllib.models import shared_attention
from prefix_rft_rllib.models.causal_lm import checkpoint_activations, packs_rows, save_lm
from prefix_rft_rllib.models.shared_attention import PREFIX_TREE
from prefix_rft_rllib.models.token_scorer import TokenScorer
from tests.models.test_token_scorer import CONFIGS, SMALL, TEMPERATURE, row_by_row
from tests.random_models import random_lm, vary_vectors

OTHERS = {
    "qwen3": Qwen3Config(**SMALL, head_dim=4),
    "gemma3_both_windows": Gemma3TextConfig(
        **SMALL,
        head_dim=4,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "llama4_chunks": Llama4TextConfig(
        **SMALL, head_dim=4, attention_chunk_size=4, interleave_moe_layer_step=1
    ),
    "gpt_neox": GPTNeoXConfig(**SMALL),
}
ALL = CONFIGS | OTHERS
# Layers between which attention is not all that tokens see.
RECURRENT = {"jamba": JambaConfig(**SMALL, use_mamba_kernels=False), "mamba": MambaConfig(**SMALL)}
FLOAT64_THROUGHOUT = "gpt2"  # the other families have parts in float32, whatever the weights are
# A prompt of six tokens with a shared prefix of four, one of three, and one alone.
GROUPS = [(6, [(4, 3), (2, 9), (0, 12), (0, 1), (4, 8)]), (3, [(0, 5), (0, 5)]), (11, [(0, 4)])]


def build_scorer(name, *, dtype=torch.float32, share_prompts=True, compute_dtype="float32"):
    lm = vary_vectors(random_lm(copy.deepcopy(ALL[name])), 0.2).to(dtype)
    return TokenScorer(
        lm,
        temperature=TEMPERATURE,
        compute_dtype=compute_dtype,
        packing=None,
        share_prompts=share_prompts,
    )


def batch_of(groups, seed=0):
    """Groups as (prompt tokens, [(tokens of a demonstration given, tokens sampled)])."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count):
        return torch.randint(0, 40, (count,), generator=generator).tolist()

    rows, regions = [], []
    for num_prompt, members in groups:
        prompt, demonstration = draw(num_prompt), draw(20)
        for num_given, num_sampled in members:
            rows.append(prompt + demonstration[:num_given] + draw(num_sampled))
            codes = [Region.PROMPT] * num_prompt + [Region.PREFIX] * num_given
            regions.append(codes + [Region.RESPONSE] * num_sampled)
    return (
        pad_rows(rows, pad_value=7, dtype=torch.int64),
        pad_rows(regions, pad_value=Region.PADDING, dtype=torch.int8),
    )


def values_and_gradients(scorer, input_ids, region, *, shares_prompts):
    """Log probabilities, entropies, and gradients of a random weighted sum of both."""
    values = scorer(input_ids, region, entropy_gradient=True, shares_prompts=shares_prompts)
    return *values, gradients_of(scorer, *values)


def gradients_of(scorer, logp, entropy):
    weights = torch.randn(2, *logp.shape, generator=torch.Generator().manual_seed(3))
    scorer.zero_grad()
    (weights[0] * logp + weights[1] * entropy).sum().backward()
    return {name: p.grad.clone() for name, p in scorer.lm.named_parameters()}


def assert_close(actual, expected, *, values, gradients):
    """Values within an absolute tolerance; gradients by the norm of their difference.

    Relative to that of the tensor, or of the largest tensor where the gradient itself is rounding.
    """
    for value, reference in zip(actual[:2], expected[:2], strict=True):
        torch.testing.assert_close(value, reference, rtol=0, atol=values)
    floor = 1e-3 * max(float(gradient.norm()) for gradient in expected[2].values())
    for name, gradient in expected[2].items():
        difference = float((actual[2][name] - gradient).norm())
        assert difference <= gradients * max(float(gradient.norm()), floor), name


@pytest.mark.parametrize("name", ALL)
def test_values_and_gradients_are_those_of_each_row_alone(name):
    scorer = build_scorer(name, dtype=torch.float64)
    batch = batch_of(GROUPS)
    is_exact = name == FLOAT64_THROUGHOUT
    logp, entropy = scorer(*batch, shares_prompts=True)
    alone = row_by_row(scorer.lm, *batch)
    torch.testing.assert_close(logp.float(), alone[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(entropy.float(), alone[1], rtol=0, atol=1e-6)
    apart = values_and_gradients(scorer, *batch, shares_prompts=False)
    shared = values_and_gradients(scorer, *batch, shares_prompts=True)
    assert_close(shared, apart, values=1e-12, gradients=1e-12 if is_exact else 1e-6)


@pytest.mark.parametrize("name", ALL)
def test_gradients_in_float32_differ_by_rounding_alone(name):
    scorer, batch = build_scorer(name), batch_of(GROUPS)
    apart = values_and_gradients(scorer, *batch, shares_prompts=False)
    shared = values_and_gradients(scorer, *batch, shares_prompts=True)
    assert_close(shared, apart, values=1e-5, gradients=3e-6)


@functools.cache
def exact_scorer(name):
    return build_scorer(name, dtype=torch.float64)


MEMBERS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["gpt2", "mistral_sliding_window"]),
    st.lists(st.tuples(st.integers(1, 9), MEMBERS), min_size=1, max_size=3),
    st.integers(1, 6),
    st.integers(1, 4),
)
def test_lengths_and_calls_of_the_attention_change_nothing(name, groups, num_queries, num_calls):
    scorer, batch = exact_scorer(name), batch_of(groups)
    apart = values_and_gradients(scorer, *batch, shares_prompts=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_attention, "_MIN_QUERIES", num_queries)
        patch.setattr(shared_attention, "_MAX_CALLS", num_calls)
        shared = values_and_gradients(scorer, *batch, shares_prompts=True)
    assert_close(shared, apart, values=1e-12, gradients=1e-12 if name == "gpt2" else 1e-6)


@pytest.mark.parametrize("name", ["llama", "mistral_sliding_window", "gemma2_softcapping"])
def test_no_row_sees_another(name):
    scorer = build_scorer(name)
    input_ids, region = batch_of([(6, [(0, 5), (0, 7), (0, 3)])])
    before, _ = scorer(input_ids, region, shares_prompts=True)
    for row in range(3):
        for position in range(6, int((region[row] != Region.PADDING).sum())):
            changed = input_ids.clone()
            changed[row, position] = 299
            after, _ = scorer(changed, region, shares_prompts=True)
            others = [other for other in range(3) if other != row]
            # Another order of rows: other sums, the same values.
            torch.testing.assert_close(after[others], before[others], rtol=0, atol=1e-5)
            assert (after[row, position:] - before[row, position:]).abs().max() > 1e-3
            torch.testing.assert_close(
                after[row, :position], before[row, :position], rtol=0, atol=1e-5
            )
    # A token of the prompt is seen by all of them.
    changed = input_ids.clone()
    changed[:, 2] = 299
    after, _ = scorer(changed, region, shares_prompts=True)
    assert ((after - before).abs().amax(dim=1) > 1e-3).all()


def test_negative_control_a_mask_of_all_tokens_before_lets_rows_see_each_other(monkeypatch):
    def make_plain_mask(**kwargs):
        from transformers.masking_utils import sdpa_mask

        return sdpa_mask(**kwargs)

    monkeypatch.setattr(shared_attention, "_make_mask", make_plain_mask)
    with pytest.raises(ValueError, match="see each other"):
        build_scorer("llama")


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2_softcapping"])
def test_recomputed_activations_give_identical_gradients(name):
    kept = values_and_gradients(build_scorer(name), *batch_of(GROUPS), shares_prompts=True)
    scorer = build_scorer(name)
    checkpoint_activations(scorer.lm)
    recomputed = values_and_gradients(scorer.train(), *batch_of(GROUPS), shares_prompts=True)
    assert_close(recomputed, kept, values=0, gradients=0)


@pytest.mark.parametrize("name", ["llama", "cohere_logit_scale"])
def test_in_bfloat16_the_gradient_is_as_far_from_float32_as_without_sharing(name):
    batch = batch_of(GROUPS)
    exact = values_and_gradients(build_scorer(name), *batch, shares_prompts=False)
    scorer = build_scorer(name, compute_dtype="bfloat16")

    def error(shares_prompts):
        rough = values_and_gradients(scorer, *batch, shares_prompts=shares_prompts)
        norm = torch.nn.utils.get_total_norm
        return float(norm([rough[2][n] - g for n, g in exact[2].items()]) / norm(exact[2].values()))

    assert error(True) < 1.3 * error(False)


@pytest.mark.parametrize("name", ["llama", "mistral_sliding_window", "gpt2"])
def test_a_model_that_can_share_runs_rows_apart_as_before_bit_for_bit(name):
    batch = batch_of(GROUPS)
    before = values_and_gradients(
        build_scorer(name, share_prompts=False), *batch, shares_prompts=False
    )
    after = values_and_gradients(build_scorer(name), *batch, shares_prompts=False)
    assert_close(after, before, values=0, gradients=0)


@pytest.mark.parametrize("family", RECURRENT)
def test_models_with_other_layers_than_attention_are_refused(family):
    lm = random_lm(copy.deepcopy(RECURRENT[family]))
    chosen = lm.config._attn_implementation
    settings = {"temperature": 1.0, "compute_dtype": "float32", "packing": None}
    with pytest.raises(ValueError, match=r"`share_prompts=True` is not possible: .*Leave it out"):
        TokenScorer(lm, share_prompts=True, **settings)
    assert lm.config._attn_implementation == chosen
    assert TokenScorer(lm, share_prompts=None, **settings).min_saved_fraction is None


def test_layers_that_number_the_tokens_of_a_pass_are_refused_shared_and_packed():
    # Few enough tokens for the check on short rows: it would not notice.
    config = Llama4TextConfig(**SMALL, head_dim=4, no_rope_layers=[1, 0], floor_scale=16)
    lm = random_lm(config)
    settings = {"temperature": 1.0, "compute_dtype": "float32"}
    with pytest.raises(ValueError, match=r"`share_prompts=True` is not possible: .*of each row"):
        TokenScorer(lm, share_prompts=True, packing=None, **settings)
    with pytest.raises(ValueError, match=r"`packing=True`: .*`attn_temperature_tuning`"):
        TokenScorer(lm, packing=True, **settings)
    lm.config._attn_implementation = "flash_attention_2"
    assert not packs_rows(lm)
    for layer in lm.model.layers:
        layer.self_attn.attn_temperature_tuning = False
    assert packs_rows(lm)


@pytest.mark.parametrize("attention", ["eager", "flash_attention_2"])
def test_other_attention_is_refused(attention):
    lm = random_lm(copy.deepcopy(ALL["llama"]))
    lm.config._attn_implementation = attention
    with pytest.raises(ValueError, match=f"is '{attention}' here, and 'sdpa' alone"):
        shared_attention.switch_to_trees(lm)


def test_a_saved_model_has_the_attention_of_everyone(tmp_path):
    scorer = build_scorer("llama")
    assert scorer.lm.config._attn_implementation == PREFIX_TREE
    save_lm(scorer.lm, tmp_path)
    assert PREFIX_TREE not in (tmp_path / "config.json").read_text()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"
