"""The vLLM engine gives each sequence away while it generates others."""

import contextlib
import dataclasses
import time

import pytest

from prefix_rft_rllib.engines import GenerationRequest
from tests.engines.vllm.vllm_models import mixed_requests, random_prompts, tokens

pytest_plugins = ("tests.engines.vllm.vllm_fixtures",)
pytestmark = [
    pytest.mark.integration,
    pytest.mark.parametrize("loaded", [True], ids=["tied"], indirect=True),
]


def requests_of(*max_new_tokens: int, temperature: float = 1.0) -> list[GenerationRequest]:
    prompts = random_prompts(*([9] * len(max_new_tokens)))
    return [
        GenerationRequest(prompt, length, temperature=temperature, seed=seed)
        for seed, (prompt, length) in enumerate(zip(prompts, max_new_tokens, strict=True))
    ]


def slowed(engine, monkeypatch, seconds: float) -> list[float]:
    """Let each of vLLM's steps take longer; returns when they ended."""
    core, ends = engine._llm.llm_engine, []
    plain_step = core.step

    def step():
        time.sleep(seconds)
        outputs = plain_step()
        ends.append(time.monotonic())
        return outputs

    monkeypatch.setattr(core, "step", step)
    return ends


def index_of(stream):
    return (index for index, _ in stream)


def is_idle(engine) -> bool:
    return not engine._llm.llm_engine.has_unfinished_requests()


def test_the_stream_has_what_generate_returns(engine):
    requests = [
        dataclasses.replace(request, temperature=temperature)
        for request, temperature in zip(mixed_requests(9), [1.0, 0.0, 0.6] * 3, strict=True)
    ]
    expected = engine.generate(requests)
    streamed = list(engine.generate_stream(requests))
    assert sorted(index for index, _ in streamed) == list(range(9))
    by_index = dict(streamed)
    assert tokens(by_index[index] for index in range(9)) == tokens(expected)
    assert list(engine.generate_stream([])) == engine.generate([]) == []


def test_short_sequences_arrive_while_long_ones_are_generated(engine, monkeypatch):
    ends = slowed(engine, monkeypatch, 0.02)
    arrivals = [
        (index, time.monotonic(), len(ends))
        for index, _ in engine.generate_stream(requests_of(60, 1, 20))
    ]
    # The end token is improbable enough for these seeds to go on to their limits.
    assert [index for index, *_ in arrivals] == [1, 2, 0]
    assert arrivals[0][2] < 10 < len(ends)
    assert arrivals[0][1] < ends[-1] - 0.5


def test_a_slow_consumer_is_no_timeout(engine, monkeypatch):
    monkeypatch.setattr(engine, "_options", dataclasses.replace(engine._options, timeout_s=0.5))
    indices = []
    for index, _ in engine.generate_stream(requests_of(1, 5, 10)):
        time.sleep(0.6)
        indices.append(index)
    assert sorted(indices) == [0, 1, 2]


def test_closing_early_drops_the_others_and_the_engine_goes_on(engine, monkeypatch):
    requests = requests_of(60, 1, 60, 60)
    expected = tokens(engine.generate(requests))
    with monkeypatch.context() as patch:
        ends = slowed(engine, patch, 0.02)
        with contextlib.closing(engine.generate_stream(requests)) as stream:
            index, _ = next(stream)
        assert index == 1
        assert is_idle(engine)
        assert len(ends) < 30
    assert tokens(engine.generate(requests)) == expected


def test_an_error_of_the_consumer_drops_the_others_too(engine, monkeypatch):
    with monkeypatch.context() as patch:
        slowed(engine, patch, 0.01)
        stream = engine.generate_stream(requests_of(60, 1, 60))
        next(stream)
        with pytest.raises(ZeroDivisionError):
            stream.throw(ZeroDivisionError())
    assert is_idle(engine)
    assert len(engine.generate(requests_of(3))) == 1


def test_results_before_an_error_arrive_and_then_the_error(engine, monkeypatch):
    core, seen = engine._llm.llm_engine, []
    plain_step, count = core.step, iter(range(1000))
    monkeypatch.setattr(core, "step", lambda: plain_step() if next(count) < 8 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        seen.extend(index_of(engine.generate_stream(requests_of(60, 1, 60))))
    assert seen == [1]
    assert is_idle(engine)


def test_a_timeout_after_some_results(engine, monkeypatch):
    monkeypatch.setattr(engine, "_options", dataclasses.replace(engine._options, timeout_s=0.3))
    core, seen = engine._llm.llm_engine, []
    plain_step, count = core.step, iter(range(10**9))
    with monkeypatch.context() as patch:
        patch.setattr(core, "step", lambda: plain_step() if next(count) < 8 else [])
        with pytest.raises(TimeoutError, match="no progress"):
            seen.extend(index_of(engine.generate_stream(requests_of(60, 1, 60))))
    assert seen == [1]
    assert len(engine.generate(requests_of(3))) == 1
