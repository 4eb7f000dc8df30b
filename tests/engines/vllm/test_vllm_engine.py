"""The vLLM engine on this machine's device, one engine per kind of model."""

import dataclasses

import pytest
import torch

from prefix_rft_rllib.engines import GenerationRequest
from tests.engines.models import (
    EOS,
    VOCAB_SIZE,
    check_that_end_tokens_stop,
)
from tests.engines.vllm.vllm_models import (
    BLOCK_SIZE,
    OTHER_EOS,
    TOLERANCE,
    logp_errors,
    mixed_requests,
    random_prompts,
    tokens,
    vllm_config,
)

pytest_plugins = ("tests.engines.vllm.vllm_fixtures",)
pytestmark = pytest.mark.integration


def outputs_of(engine, monkeypatch) -> list:
    """What vLLM returns from its steps, from now on."""
    seen: list = []
    core = engine._llm.llm_engine
    plain_step = core.step

    def step():
        outputs = plain_step()
        seen.extend(outputs)
        return outputs

    monkeypatch.setattr(core, "step", step)
    return seen


def test_logps_equal_an_unpadded_forward_of_the_newest_weights(engine, model, new_model):
    requests = mixed_requests()
    generations = engine.generate(requests)
    assert {generation.finish_reason for generation in generations} == {"stop", "length"}
    assert logp_errors(model, requests, generations).max() < TOLERANCE
    engine.load_weights(new_model.state_dict(), version=7)
    assert engine.weights_version == 7
    generations = engine.generate(requests)
    assert logp_errors(new_model, requests, generations).max() < TOLERANCE
    assert logp_errors(model, requests, generations).mean() > 1


def test_a_stale_prefix_cache_would_be_noticed(engine, new_model, monkeypatch):
    requests = [GenerationRequest(prompt, 4) for prompt in random_prompts(70, 100)]
    engine.generate(requests)
    with monkeypatch.context() as patch:
        patch.setattr(engine._llm.llm_engine, "reset_prefix_cache", lambda: True)
        engine.load_weights(new_model.state_dict(), version=2)
        assert logp_errors(new_model, requests, engine.generate(requests)).max() > 0.1
    engine.load_weights(new_model.state_dict(), version=2)
    assert logp_errors(new_model, requests, engine.generate(requests)).max() < TOLERANCE


@pytest.mark.parametrize("top_p", [1.0, 0.5])
@pytest.mark.parametrize("temperature", [0.0, 0.003, 0.5, 1.0, 3.0])
def test_logps_are_those_of_the_temperature_before_top_p(engine, model, temperature, top_p):
    # vLLM itself raises 0.003 to 0.01 and refuses 3.
    requests = [
        GenerationRequest(prompt, 12, temperature=temperature, top_p=top_p, seed=seed)
        for seed, prompt in enumerate(random_prompts(5, 40, 40, 5))
    ]
    assert logp_errors(model, requests, engine.generate(requests)).max() < TOLERANCE


def test_a_sequence_is_the_same_alone_and_in_any_batch(engine):
    requests = mixed_requests(12)
    together = tokens(engine.generate(requests))
    assert tokens(engine.generate(requests[::-1]))[::-1] == together
    for row, request in enumerate(requests):
        others = [dataclasses.replace(r, seed=r.seed + 999, prompt_ids=[5, 6]) for r in requests]
        others[row] = request
        assert tokens(engine.generate(others))[row] == together[row]


def test_each_of_several_end_tokens_stops_and_is_part_of_the_response(engine, model, monkeypatch):
    ends = {EOS, OTHER_EOS, *range(20, 30)}
    monkeypatch.setattr(engine, "_eos_token_ids", frozenset(ends))
    prompt = [3, EOS, 25, OTHER_EOS]  # end tokens of a prompt end nothing
    check_that_end_tokens_stop(engine, model, prompt, ends, tolerance=TOLERANCE)


def test_more_tokens_than_a_step_or_the_cache_hold_give_the_same_sequences(engine):
    # A step prefills 4096 tokens at most, so these take two. They fill the whole cache up to one
    # token: at the second new one some sequences are thrown out, to be computed again later.
    prompts = random_prompts(*[4 * BLOCK_SIZE - 1] * 64)
    requests = [GenerationRequest(p, 40, seed=seed) for seed, p in enumerate(prompts)]
    generations = engine.generate(requests)
    for row in range(0, 64, 7):
        assert engine.generate([requests[row]])[0].token_ids == generations[row].token_ids


def test_same_seeds_repeat_and_neighbouring_seeds_differ(engine):
    seeds = (5, 5, 6, 5 + 2**32, -5, 5 + 2**64)
    requests = [GenerationRequest([7, 8, 9], 20, seed=seed) for seed in seeds]
    first = tokens(engine.generate(requests))
    assert first[0] == first[1] == first[5]
    assert len(set(map(tuple, first))) == 4
    assert tokens(engine.generate(requests)) == first


def test_global_generators_are_neither_used_nor_advanced(engine):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    before = tokens(engine.generate(mixed_requests()))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert tokens(engine.generate(mixed_requests())) == before


def test_first_token_frequencies_follow_the_filtered_softmax(engine, model):
    num_draws, top_p = 2000, 0.9
    requests = [
        GenerationRequest([7, 8, 9], 1, temperature=0.8, top_p=top_p, seed=seed)
        for seed in range(num_draws)
    ]
    drawn = torch.tensor(tokens(engine.generate(requests)))[:, 0]
    with torch.no_grad():
        logits = model(torch.tensor([[7, 8, 9]])).logits[0, -1].double()
    probabilities = (logits / 0.8).softmax(-1)
    ordered, order = probabilities.sort(descending=True)
    inside = order[ordered.cumsum(0) - ordered < top_p]
    assert set(drawn.tolist()) <= set(inside.tolist())
    mean = probabilities[inside] / probabilities[inside].sum() * num_draws
    counts = torch.bincount(drawn, minlength=VOCAB_SIZE)[inside]
    chi_square = ((counts - mean) ** 2 / mean).sum().item()
    df = len(inside) - 1
    assert chi_square < df + 4 * (2 * df) ** 0.5


def test_greedy_equals_generate_of_transformers(engine, model):
    prompts = random_prompts(9, 40)
    generations = engine.generate([GenerationRequest(p, 20, temperature=0.0) for p in prompts])
    for prompt, generation in zip(prompts, generations, strict=True):
        output = model.generate(
            torch.tensor([prompt]),
            do_sample=False,
            max_new_tokens=20,
            eos_token_id=EOS,
            pad_token_id=0,
        )
        assert output[0, len(prompt) :].tolist() == generation.token_ids


def test_the_prompt_of_a_group_is_prefilled_once(engine, monkeypatch):
    outputs = outputs_of(engine, monkeypatch)
    (prompt,) = random_prompts(2 * BLOCK_SIZE + 6)
    engine.generate([GenerationRequest(prompt, 3, seed=seed) for seed in range(8)])
    cached = sorted(output.num_cached_tokens for output in outputs if output.finished)
    assert cached == [0] + [2 * BLOCK_SIZE] * 7


def test_only_the_engines_end_token_ends_and_it_is_included(engine):
    requests = [GenerationRequest([2, 3], 6, temperature=1.5, seed=seed) for seed in range(200)]
    generations = engine.generate(requests)
    for generation in generations:
        assert EOS not in generation.token_ids[:-1]
        assert (generation.token_ids[-1] == EOS) == (generation.finish_reason == "stop")
        if generation.finish_reason == "length":
            assert len(generation.token_ids) == 6
    stopped = [g for g in generations if g.finish_reason == "stop"]
    assert {len(generation.token_ids) for generation in stopped} >= {2, 6}
    assert any(OTHER_EOS in generation.token_ids[:-1] for generation in generations)


def test_the_longest_request_that_fits_is_generated_and_longer_ones_are_errors(engine):
    length = vllm_config().max_position_embeddings
    prompt = [3] * (length - 2)
    generations = engine.generate([GenerationRequest(prompt, 2, seed=s) for s in range(5)])
    assert any(len(generation.token_ids) == 2 for generation in generations)
    for request, message in [
        (GenerationRequest(prompt, 3), f"{length + 1} positions.*max_position_embeddings"),
        (GenerationRequest([3, VOCAB_SIZE], 4), f"id {VOCAB_SIZE}"),
        (GenerationRequest([-1], 4), "id -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            engine.generate([GenerationRequest([3], 4), request])
    assert engine.generate([]) == []


def test_a_state_dict_that_does_not_fit_changes_nothing(engine, model, new_model):
    good = new_model.state_dict()
    norm, shard = "model.norm.weight", "model.layers.1.self_attn.k_proj.bias"
    cases = {
        f"missing: {norm}": {k: v for k, v in good.items() if k != norm},
        f"missing: {shard}": {k: v for k, v in good.items() if k != shard},
        "unexpected: extra": {**good, "extra": torch.zeros(1)},
        f"wrong shape: {shard}": {**good, shard: torch.zeros(300)},
    }
    requests = mixed_requests(8)
    for message, state in cases.items():
        with pytest.raises(ValueError, match=message):
            engine.load_weights(state, version=9)
        assert engine.weights_version == 1
        assert logp_errors(model, requests, engine.generate(requests)).max() < TOLERANCE


@pytest.mark.parametrize("dropped", ["lm_head.weight", "model.embed_tokens.weight"])
def test_one_of_two_tied_names_is_enough(engine, new_model, dropped):
    state = {k: v for k, v in new_model.state_dict().items() if k != dropped}
    requests = mixed_requests(8)
    if new_model.config.tie_word_embeddings:
        engine.load_weights(state, version=2)
        assert logp_errors(new_model, requests, engine.generate(requests)).max() < TOLERANCE
    else:
        with pytest.raises(ValueError, match=f"missing: {dropped}"):
            engine.load_weights(state, version=2)


def test_later_changes_of_the_source_do_not_reach_the_engine(engine, model):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    engine.load_weights(state, version=3)
    for tensor in state.values():
        tensor.zero_()
    requests = mixed_requests(8)
    assert logp_errors(model, requests, engine.generate(requests)).max() < TOLERANCE
