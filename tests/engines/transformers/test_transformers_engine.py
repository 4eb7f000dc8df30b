import dataclasses

import pytest
import torch
from transformers import Qwen2Config

from prefix_rft_rllib.engines import Engine, GenerationRequest, build_engine
from prefix_rft_rllib.engines.transformers.engine import TransformersEngine
from tests.engines.models import (
    CONFIGS,
    EOS,
    VOCAB_SIZE,
    build_loaded_engine,
    build_model,
    check_that_end_tokens_stop,
    mixed_requests,
    unpadded_logps,
)
from tests.random_models import random_lm


def _tokens(generations):
    return [generation.token_ids for generation in generations]


@pytest.mark.parametrize("name", CONFIGS)
def test_logps_equal_an_unpadded_forward(name):
    model = build_model(name)
    requests = mixed_requests(40)
    generations = build_loaded_engine(model).generate(requests)
    # Both ends occur, else rows leaving the batch early would go untested.
    assert {generation.finish_reason for generation in generations} == {"stop", "length"}
    for request, generation in zip(requests, generations, strict=True):
        assert len(generation.logps) == len(generation.token_ids)
        expected = unpadded_logps(model, request, generation)
        assert generation.logps == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["qwen2_tied", "gpt2_learned_positions"])
def test_a_sequence_is_the_same_alone_and_in_any_batch(name):
    engine = build_loaded_engine(build_model(name))
    requests = mixed_requests()
    together = _tokens(engine.generate(requests))
    assert _tokens(engine.generate(requests[::-1]))[::-1] == together
    others = [dataclasses.replace(r, seed=r.seed + 999, prompt_ids=[5, 6]) for r in requests]
    for row, request in enumerate(requests):
        assert _tokens(engine.generate([request])) == [together[row]]
        neighbours = [*others[:row], request, *others[row + 1 :]]
        assert _tokens(engine.generate(neighbours))[row] == together[row]


@pytest.mark.parametrize("options", [{}, {"max_batch_size": 5}])
def test_a_stream_gives_the_same_generations_as_they_finish(options):
    engine = build_loaded_engine(build_model(), **options)
    requests = mixed_requests()
    expected = engine.generate(requests)
    stream = list(engine.generate_stream(requests))
    assert sorted(index for index, _ in stream) == list(range(len(requests)))
    assert [generation for _, generation in sorted(stream, key=lambda s: s[0])] == expected
    lengths = [len(generation.token_ids) for _, generation in stream]
    # In one batch shorter ones come first.
    assert (lengths == sorted(lengths)) == (options == {})
    assert len(set(lengths)) > 1


def test_a_stream_gives_a_row_away_before_others_are_generated():
    engine = build_loaded_engine(build_model())
    forwards = []
    model = engine._open_model()
    model.register_forward_hook(lambda *args: forwards.append(1))
    requests = [GenerationRequest([4, 5], length, seed=1) for length in (1, 12)]
    stream = engine.generate_stream(requests)
    index, generation = next(stream)
    assert (index, len(generation.token_ids), len(forwards)) == (0, 1, 1)
    assert not torch.is_inference_mode_enabled()  # what runs between rows is the caller's
    assert [index for index, _ in stream] == [1]
    assert len(forwards) > 1


def test_an_engine_without_a_stream_of_its_own_gives_all_at_the_end():
    engine = build_loaded_engine(build_model())
    requests = mixed_requests()
    stream = Engine.generate_stream(engine, requests)
    assert list(stream) == list(enumerate(engine.generate(requests)))


@pytest.mark.parametrize("options", [{"max_batch_size": 5}, {"max_batch_tokens": 80}])
def test_batch_limits_do_not_change_the_result(options):
    model = build_model()
    requests = mixed_requests()
    whole = build_loaded_engine(model).generate(requests)
    assert _tokens(build_loaded_engine(model, **options).generate(requests)) == _tokens(whole)


def test_same_seeds_repeat_and_other_seeds_differ():
    engine = build_loaded_engine(build_model())
    requests = [GenerationRequest([4, 5], 12, seed=seed) for seed in (1, 1, 2)]
    first, second, third = engine.generate(requests)
    assert first.token_ids == second.token_ids != third.token_ids
    assert engine.generate(requests) == engine.generate(requests)


def test_global_generator_is_neither_used_nor_advanced():
    model = build_model()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    engine = build_loaded_engine(model)
    tokens = _tokens(engine.generate(mixed_requests()))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert _tokens(engine.generate(mixed_requests())) == tokens


def test_first_token_frequencies_follow_the_model():
    model = build_model()
    num_draws = 4000
    generations = build_loaded_engine(model, max_batch_size=num_draws).generate(
        [GenerationRequest([7, 8, 9], 1, seed=seed) for seed in range(num_draws)]
    )
    with torch.no_grad():
        probabilities = model(torch.tensor([[7, 8, 9]])).logits[0, -1].double().softmax(-1)
    counts = torch.bincount(torch.tensor(_tokens(generations))[:, 0], minlength=VOCAB_SIZE)
    # Tokens expected fewer than 5 times are counted together.
    mean = probabilities * num_draws
    rare = mean < 5
    observed = torch.cat([counts[~rare].double(), counts[rare].sum()[None].double()])
    expected = torch.cat([mean[~rare], mean[rare].sum()[None]])
    chi_square = ((observed - expected) ** 2 / expected).sum().item()
    df = len(expected) - 1
    assert chi_square < df + 4 * (2 * df) ** 0.5


def test_top_p_never_leaves_the_nucleus():
    model = build_model()
    requests = [GenerationRequest([3, 4], 15, top_p=0.5, seed=seed) for seed in range(30)]
    for request, generation in zip(
        requests, build_loaded_engine(model).generate(requests), strict=True
    ):
        ids = torch.tensor([[*request.prompt_ids, *generation.token_ids]])
        with torch.no_grad():
            probabilities = model(ids).logits[0, 1:-1].double().softmax(-1)
        chosen = probabilities.gather(-1, ids[0, 2:, None])
        # A token is inside if the more probable ones do not reach top_p without it.
        mass_above = (probabilities * (probabilities > chosen)).sum(-1)
        assert (mass_above < 0.5 + 1e-5).all()


@pytest.mark.parametrize("name", ["qwen2_untied", "gpt2_learned_positions"])
def test_greedy_equals_generate_of_transformers(name):
    model = build_model(name)
    prompts = [request.prompt_ids for request in mixed_requests(5)]
    requests = [GenerationRequest(prompt, 20, temperature=0.0) for prompt in prompts]
    generations = build_loaded_engine(model).generate(requests)
    for prompt, generation in zip(prompts, generations, strict=True):
        output = model.generate(
            torch.tensor([prompt]),
            do_sample=False,
            max_new_tokens=20,
            eos_token_id=EOS,
            pad_token_id=0,
        )
        assert output[0, len(prompt) :].tolist() == generation.token_ids


def test_end_token_is_included_and_length_counts_it():
    engine = build_loaded_engine(build_model())
    requests = [GenerationRequest([2, 3], 6, temperature=1.5, seed=seed) for seed in range(200)]
    generations = engine.generate(requests)
    stopped = [g for g in generations if g.finish_reason == "stop"]
    assert stopped
    for generation in generations:
        assert EOS not in generation.token_ids[:-1]
        assert (generation.token_ids[-1] == EOS) == (generation.finish_reason == "stop")
        assert len(generation.token_ids) <= 6
        if generation.finish_reason == "length":
            assert len(generation.token_ids) == 6
    assert any(len(generation.token_ids) == 6 for generation in stopped)


def test_each_of_several_end_tokens_stops():
    model = build_model()
    engine = TransformersEngine(model.config, eos_token_ids=range(2, VOCAB_SIZE), device="cpu")
    engine.load_weights(model.state_dict(), version=1)
    generations = engine.generate([GenerationRequest([4], 50, seed=seed) for seed in range(20)])
    assert all(generation.token_ids[-1] >= 2 for generation in generations)
    assert all(set(generation.token_ids[:-1]) <= {0, 1} for generation in generations)


def test_no_requests_give_no_generations():
    assert build_loaded_engine(build_model()).generate([]) == []


def test_bfloat16_engine_takes_float32_weights():
    model = build_model()
    requests = mixed_requests()
    generations = build_loaded_engine(model, dtype="bfloat16").generate(requests)
    reference = build_model().to(torch.bfloat16)
    errors = [
        abs(logp - expected)
        for request, generation in zip(requests, generations, strict=True)
        for logp, expected in zip(
            generation.logps, unpadded_logps(reference, request, generation), strict=True
        )
    ]
    assert sum(errors) / len(errors) < 5e-2


def test_eager_attention_gives_the_same_tokens():
    model = build_model()
    requests = mixed_requests()
    eager = build_loaded_engine(model, attn_implementation="eager").generate(requests)
    assert _tokens(eager) == _tokens(build_loaded_engine(model).generate(requests))


def test_bad_requests_are_value_errors():
    good = {"prompt_ids": [3], "max_new_tokens": 4}
    for bad, message in [
        ({"prompt_ids": []}, "prompt_ids"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
    ]:
        with pytest.raises(ValueError, match=message):
            GenerationRequest(**{**good, **bad})
    engine = build_loaded_engine(build_model(), max_batch_tokens=100)
    for request, message in [
        (GenerationRequest([3, VOCAB_SIZE], 4), f"id {VOCAB_SIZE}"),
        (GenerationRequest([-1], 4), "id -1"),
        (GenerationRequest([3] * 100, 29), "129 positions.*max_position_embeddings.*128"),
        (GenerationRequest([3] * 99, 2), "max_batch_tokens.*100"),
    ]:
        with pytest.raises(ValueError, match=message):
            engine.generate([GenerationRequest([3], 4), request])


def test_the_longest_request_that_fits_the_positions_is_generated():
    generations = build_loaded_engine(build_model("gpt2_learned_positions")).generate(
        [GenerationRequest([3] * 120, 8, seed=seed) for seed in range(3)]
    )
    assert any(len(generation.token_ids) == 8 for generation in generations)


def test_bad_construction_is_a_value_error():
    config = CONFIGS["qwen2_tied"]
    for eos, options, message in [
        ([], {}, "eos_token_ids"),
        ([VOCAB_SIZE], {}, "eos_token_ids"),
        ([EOS], {"dtype": "int8"}, "'float32', 'bfloat16', 'float16', got 'int8'"),
        ([EOS], {"max_batch_size": 0}, "max_batch_size"),
        ([EOS], {"max_batch_tokens": 0}, "max_batch_tokens"),
        ([EOS], {"batch_size": 3}, "batch_size.*max_batch_size"),
    ]:
        with pytest.raises(ValueError, match=message):
            TransformersEngine(config, eos_token_ids=eos, **options)
    with pytest.raises(ValueError, match=r"vlm.*transformers"):
        build_engine("vlm", config, eos_token_ids=[EOS])


def test_build_engine_passes_its_options_on():
    with pytest.raises(ValueError, match="max_batch_size"):
        build_engine("transformers", CONFIGS["llama"], eos_token_ids=[EOS], max_batch_size=-1)
    engine = build_engine("transformers", CONFIGS["llama"], eos_token_ids=[EOS], device="cpu")
    assert isinstance(engine, TransformersEngine)
    assert engine.weights_version is None


def test_generate_needs_weights_and_an_open_engine():
    engine = TransformersEngine(CONFIGS["llama"], eos_token_ids=[EOS], device="cpu")
    with pytest.raises(RuntimeError, match="load_weights"):
        engine.generate([GenerationRequest([3], 4)])
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.generate([GenerationRequest([3], 4)])


def test_weights_that_give_nan_are_an_error():
    model = build_model()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(RuntimeError, match="not finite"):
        build_loaded_engine(model).generate([GenerationRequest([3], 4)])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["qwen2_tied", "gpt2_learned_positions"])
def test_the_gpu_draws_the_same_tokens_as_the_cpu(name):
    model = build_model(name)
    requests = mixed_requests()
    on_gpu = TransformersEngine(model.config, eos_token_ids=[EOS], device="cuda")
    on_gpu.load_weights(model.state_dict(), version=1)
    generations = on_gpu.generate(requests)
    assert _tokens(generations) == _tokens(build_loaded_engine(model).generate(requests))
    for request, generation in zip(requests, generations, strict=True):
        expected = unpadded_logps(model, request, generation)
        assert generation.logps == pytest.approx(expected, abs=1e-4)


def test_the_engine_leaves_the_given_configuration_alone():
    config = Qwen2Config(**{**CONFIGS["qwen2_tied"].to_dict(), "attention_dropout": 0.5})
    before = config.to_dict()
    model = random_lm(config)
    engine = build_loaded_engine(model, dtype="bfloat16", attn_implementation="eager")
    first = engine.generate(mixed_requests())
    assert engine.generate(mixed_requests()) == first  # dropout would differ from call to call
    assert config.to_dict() == before


def test_each_of_several_end_tokens_stops_and_is_part_of_the_response():
    model = build_model()
    ends = {EOS, *range(20, 30)}
    engine = TransformersEngine(model.config, eos_token_ids=[*ends, EOS], device="cpu")
    engine.load_weights(model.state_dict(), version=1)
    prompt = [3, EOS, 25]  # end tokens of a prompt end nothing
    check_that_end_tokens_stop(engine, model, prompt, ends, tolerance=1e-4)
