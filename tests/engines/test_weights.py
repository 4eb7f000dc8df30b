import numpy as np
import pytest
import torch

from prefix_rft_rllib.engines import GenerationRequest
from prefix_rft_rllib.models.state_arrays import state_to_arrays, state_to_tensors
from tests.engines.models import (
    build_loaded_engine,
    build_model,
    mixed_requests,
    unpadded_logps,
)


def _logps_follow(model, engine):
    requests = mixed_requests(6)
    for request, generation in zip(requests, engine.generate(requests), strict=True):
        expected = unpadded_logps(model, request, generation)
        if generation.logps != pytest.approx(expected, abs=1e-5):
            return False
    return True


@pytest.mark.parametrize("name", ["qwen2_tied", "qwen2_untied", "gpt2_learned_positions"])
def test_new_weights_replace_the_old_ones(name):
    old, new = build_model(name, seed=0), build_model(name, seed=1)
    engine = build_loaded_engine(old)
    assert _logps_follow(old, engine)
    engine.load_weights(new.state_dict(), version=7)
    assert engine.weights_version == 7
    assert _logps_follow(new, engine)
    assert not _logps_follow(old, engine)


def test_later_changes_of_the_source_do_not_reach_the_engine():
    model = build_model()
    engine = build_loaded_engine(model)
    request = GenerationRequest([3, 4], 8, seed=1)
    before = engine.generate([request])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert engine.generate([request]) == before


@pytest.mark.parametrize("dropped", ["lm_head.weight", "model.embed_tokens.weight"])
def test_one_of_two_tied_names_is_enough(dropped):
    new = build_model(seed=1)
    engine = build_loaded_engine(build_model(seed=0))
    state = {name: tensor for name, tensor in new.state_dict().items() if name != dropped}
    engine.load_weights(state, version=2)
    assert _logps_follow(new, engine)


def test_a_state_dict_that_does_not_fit_changes_nothing():
    model = build_model()
    engine = build_loaded_engine(model)
    good = build_model(seed=1).state_dict()
    norm = "model.norm.weight"
    tied = "lm_head.weight"
    cases = {
        f"missing: {norm}": {k: v for k, v in good.items() if k != norm},
        "unexpected: extra": {**good, "extra": torch.zeros(1)},
        rf"wrong shape: {norm} is \(3,\) instead of \(32,\)": {**good, norm: torch.zeros(3)},
        "tied in the model but different": {**good, tied: good[tied] + 1},
        "missing: .* and 1[0-9] more": {},
    }
    for message, state in cases.items():
        with pytest.raises(ValueError, match=message):
            engine.load_weights(state, version=9)
        assert engine.weights_version == 1
        assert _logps_follow(model, engine)


def test_every_problem_is_named_in_one_error():
    good = build_model().state_dict()
    good["extra"] = good.pop("model.norm.weight")
    good["lm_head.weight"] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"missing.*unexpected.*wrong shape"):
        build_loaded_engine(build_model()).load_weights(good, version=2)


def test_untied_embeddings_need_both():
    model = build_model("qwen2_untied")
    state = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    with pytest.raises(ValueError, match=r"missing: lm_head\.weight"):
        build_loaded_engine(model).load_weights(state, version=2)


def test_an_engine_neither_keeps_nor_changes_the_memory_of_loaded_weights():
    """The env runner gives engines the object store's own memory."""
    first, second = (state_to_arrays(build_model(seed=seed).state_dict()) for seed in (0, 1))
    untouched = {name: value.copy() for name, value in first.items()}
    engine = build_loaded_engine(build_model(seed=2))
    requests = mixed_requests(6)
    engine.load_weights(state_to_tensors(first, copy=False), version=1)
    before = engine.generate(requests)
    engine.load_weights(state_to_tensors(second, copy=False), version=2)
    assert engine.generate(requests) != before
    for name, value in untouched.items():
        np.testing.assert_array_equal(first[name], value)
    engine.load_weights(state_to_tensors(first, copy=False), version=3)
    for value in first.values():
        value[...] = 0.0
    assert engine.generate(requests) == before
