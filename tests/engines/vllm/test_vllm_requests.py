from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.engines.engine import GenerationRequest
from prefix_rft_rllib.engines.vllm.requests import (
    _mix_32,
    sampling_params,
    to_generation,
    vllm_seed,
)
from tests.engines.vllm.vllm_models import require_vllm

_SEEDS = st.integers(-(2**66), 2**66)


@given(seed=_SEEDS, distance=st.integers(1, 1000))
@settings(max_examples=200, deadline=None)
def test_neighbouring_seeds_differ_in_the_bits_that_cpu_generators_read(seed, distance):
    seeds = vllm_seed(seed), vllm_seed(seed + distance)
    assert all(0 <= value < 2**63 for value in seeds)
    if seed >> 32 == seed + distance >> 32:  # else they differ but for one chance in 2**32
        assert seeds[0] % 2**32 != seeds[1] % 2**32


@given(seed=_SEEDS)
@settings(max_examples=100, deadline=None)
def test_seeds_are_taken_modulo_two_to_the_64(seed):
    assert vllm_seed(seed) == vllm_seed(seed + 2**64) == vllm_seed(seed % 2**64)


def test_all_64_bits_of_a_seed_reach_the_lower_half():
    # 10,000 numbers of 32 bits have 0.012 equal pairs on average.
    seeds = [n << 20 for n in range(10_000)]
    assert len({vllm_seed(seed) % 2**32 for seed in seeds}) == len(seeds)
    flipped = {vllm_seed(1 << bit) % 2**32 for bit in range(64)}
    assert len(flipped) == 64


def test_the_mixer_reproduces_published_values_of_murmurhash3():
    # MurmurHash3_x86_32 of no bytes is the finalizer of the seed.
    assert _mix_32(0) == 0
    assert _mix_32(1) == 0x514E28B7
    assert _mix_32(0xFFFFFFFF) == 0x81F16F39


def completion(token_ids=(5, 6), logps=(-1.0, -2.0), finish_reason="length"):
    return SimpleNamespace(
        token_ids=list(token_ids),
        logprobs=SimpleNamespace(logprobs=list(logps)),
        finish_reason=finish_reason,
    )


def test_the_finish_reason_is_that_of_the_last_token():
    # At the limit with an end token as the last one the interface says "stop".
    assert to_generation(completion(), [1]).finish_reason == "length"
    assert to_generation(completion(), [6]).finish_reason == "stop"
    assert to_generation(completion(finish_reason="stop"), [6]).finish_reason == "stop"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finish_reason": "abort"}, "'abort'"),
        ({"finish_reason": None}, "None"),
        ({"logps": [-1.0]}, "after 2 tokens with 1 log-probabilities"),
        ({"logps": [-1.0, float("nan")]}, "not finite"),
        ({"logps": [-1.0, float("-inf")]}, "not finite"),
    ],
)
def test_a_result_that_is_not_whole_is_an_error(changes, message):
    with pytest.raises(RuntimeError, match=message):
        to_generation(completion(**changes), [6])


def test_a_request_asks_for_the_models_own_distribution_and_stops_at_end_tokens_alone():
    require_vllm()
    params = sampling_params(GenerationRequest([1], 5, temperature=0.7, top_p=0.9), {7, 3})
    assert (params.temperature, params.top_p, params.max_tokens) == (1.0, 0.9, 5)
    assert (params.top_k, params.min_p, params.min_tokens) == (0, 0.0, 0)
    assert params.repetition_penalty == 1.0
    assert params.presence_penalty == params.frequency_penalty == 0.0
    assert (params.stop_token_ids, params.stop, params.ignore_eos) == ([3, 7], [], True)
    assert not params.logit_bias and not params.bad_words and params.allowed_token_ids is None
