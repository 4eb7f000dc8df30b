"""Building and closing vLLM engines, and engines of other kinds than `test_vllm_engine.py` has."""

import multiprocessing
import tempfile
import threading

import numpy as np
import pytest
import torch

from prefix_rft_rllib.engines import GenerationRequest, build_engine
from prefix_rft_rllib.models.state_arrays import state_to_arrays, state_to_tensors
from tests.engines.models import EOS
from tests.engines.vllm.vllm_models import (
    OPTIONS,
    TOLERANCE,
    logp_errors,
    random_prompts,
    require_vllm,
    vllm_config,
    vllm_model,
)

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def directory(monkeypatch, tmp_path):
    """Where engines put their files; nothing may be left there, or run, after a test."""
    require_vllm()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert not list(tmp_path.glob("prefix_rft_vllm_*"))
    assert "vllm_engine" not in {thread.name for thread in threading.enumerate()}
    assert not multiprocessing.active_children()
    assert not torch.distributed.is_initialized()


def build(**options):
    return build_engine("vllm", vllm_config(), eos_token_ids=[EOS], **{**OPTIONS, **options})


def requests_of(*lengths: int) -> list[GenerationRequest]:
    prompts = random_prompts(*lengths)
    return [GenerationRequest(p, 16, temperature=1.3, seed=i) for i, p in enumerate(prompts)]


def test_bfloat16_weights_survive_the_way_from_the_learner(directory):
    model = vllm_model().to(torch.bfloat16)
    arrays = state_to_arrays(model.state_dict())
    requests = requests_of(*range(4, 20))
    engine = build(dtype="bfloat16")
    assert len(list(directory.glob("prefix_rft_vllm_*"))) == 1
    engine.load_weights(state_to_tensors(arrays), version=1)
    errors = logp_errors(model, requests, engine.generate(requests))
    assert errors.mean() < 5e-2
    # Log-probabilities are not rounded to bfloat16, which has 3 digits.
    logps = torch.tensor(engine.generate(requests)[0].logps)
    assert (logps != logps.to(torch.bfloat16).float()).any()
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.generate(requests)
    with pytest.raises(RuntimeError, match="closed"):
        engine.load_weights(model.state_dict(), version=2)


def test_the_memory_of_loaded_weights_is_neither_kept_nor_changed():
    """The env runner gives engines the object store's own memory."""
    first, second = (state_to_arrays(vllm_model(seed=seed).state_dict()) for seed in (0, 1))
    untouched = {name: value.copy() for name, value in first.items()}
    requests = requests_of(5, 9)
    engine = build()
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
    engine.close()


def test_an_engine_wants_a_process_of_its_own_and_the_next_one_may_follow():
    engine = build()
    with pytest.raises(RuntimeError, match=r"in use in this process.*num_env_runners"):
        build()
    engine.close()
    build().close()


def test_a_build_that_fails_leaves_the_process_as_it_was():
    with pytest.raises(ValueError, match="cache blocks"):
        build(kv_cache_memory_bytes=1000, max_model_len=200)
    with pytest.raises(ValueError, match="enable_chunked_prefill"):
        build(enable_chunked_prefill=True)
    build().close()


def test_the_context_is_cut_to_the_cache_and_longer_requests_are_errors():
    engine = build(kv_cache_memory_bytes=128 * 2**10)  # 128 tokens of the model's 256
    engine.load_weights(vllm_model().state_dict(), version=1)
    assert len(engine.generate([GenerationRequest([3] * 90, 6)])) == 1
    with pytest.raises(ValueError, match=r"256 tokens; this engine has room.*kv_cache_memory"):
        engine.generate([GenerationRequest([3] * 250, 6)])
    engine.close()


@pytest.mark.slow
def test_two_worker_processes_get_the_same_weights_and_temperature():
    engine = build(tensor_parallel_size=2)
    requests = requests_of(9, 70, 40)
    for seed in (0, 1):
        model = vllm_model(seed=seed)
        engine.load_weights(model.state_dict(), version=seed)
        assert logp_errors(model, requests, engine.generate(requests)).max() < TOLERANCE
    engine.close()
