"""What the vLLM engine does when vLLM fails, hangs or is interrupted."""

import dataclasses
import threading
import time

import pytest

from prefix_rft_rllib.engines import EngineBrokenError, GenerationRequest
from prefix_rft_rllib.engines.vllm import watched_calls
from tests.engines.vllm.vllm_models import (
    TOLERANCE,
    logp_errors,
    mixed_requests,
    random_prompts,
    tokens,
)

pytest_plugins = ("tests.engines.vllm.vllm_fixtures",)
pytestmark = [
    pytest.mark.integration,
    pytest.mark.parametrize("loaded", [True], ids=["tied"], indirect=True),
]


def test_weights_that_give_nan_are_an_error_and_good_ones_help(engine, model):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["model.norm.weight"][0] = float("nan")
    engine.load_weights(state, version=4)
    for temperature in (0.0, 1.0):
        with pytest.raises(RuntimeError, match="not finite"):
            engine.generate([GenerationRequest([3], 4, temperature=temperature)])
    engine.load_weights(model.state_dict(), version=5)
    requests = mixed_requests(8)
    assert logp_errors(model, requests, engine.generate(requests)).max() < TOLERANCE


def test_an_engine_whose_weights_vllm_could_not_load_is_not_used_again(engine, model, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("half of the weights")

    with monkeypatch.context() as patch:
        patch.setattr(engine._llm.llm_engine, "collective_rpc", fail)
        with pytest.raises(EngineBrokenError, match=r"half of the weights.*Build a new"):
            engine.load_weights(model.state_dict(), version=9)
    assert engine.weights_version == 1
    for call in (
        lambda: engine.generate([GenerationRequest([3], 4)]),
        lambda: engine.load_weights(model.state_dict(), version=9),
    ):
        with pytest.raises(EngineBrokenError, match=r"broken: .*half of the weights"):
            call()


def test_a_cache_that_was_not_reset_breaks_the_engine(engine, model, monkeypatch):
    monkeypatch.setattr(engine._llm.llm_engine, "reset_prefix_cache", lambda: False)
    with pytest.raises(EngineBrokenError, match="kept keys and values"):
        engine.load_weights(model.state_dict(), version=9)
    with pytest.raises(EngineBrokenError, match="broken"):
        engine.generate([GenerationRequest([3], 4)])


def failing_step(engine, monkeypatch, error, after: int = 3):
    """Let vLLM's step call `error` after some steps."""
    core = engine._llm.llm_engine
    plain_step, count = core.step, iter(range(10**9))

    def step():
        return error() if next(count) >= after else plain_step()

    monkeypatch.setattr(core, "step", step)


def test_after_an_error_in_a_step_nothing_is_left_over(engine, monkeypatch):
    requests = mixed_requests()
    expected = tokens(engine.generate(requests))

    def fail():
        raise RuntimeError("out of order")

    with monkeypatch.context() as patch:
        failing_step(engine, patch, fail)
        with pytest.raises(RuntimeError, match="out of order"):
            engine.generate(requests)
    assert engine._llm.llm_engine.reset_prefix_cache()
    assert tokens(engine.generate(requests)) == expected


def test_a_model_with_logits_in_several_places_has_temperature_one_only(engine, model, monkeypatch):
    core = engine._llm.llm_engine
    plain_rpc = core.collective_rpc
    (prompt,) = random_prompts(9)
    engine.generate([GenerationRequest(prompt, 8)])
    monkeypatch.setattr(core, "collective_rpc", lambda *a, **k: [2 * plain_rpc(*a, **k)[0]])
    with pytest.raises(RuntimeError, match="logits in 2 places of vLLM"):
        engine.generate([GenerationRequest(prompt, 8, temperature=0.7)])
    requests = [GenerationRequest(prompt, 8), GenerationRequest(prompt, 8, temperature=0.0)]
    assert logp_errors(model, requests, engine.generate(requests)).max() < TOLERANCE


def test_requests_that_cannot_be_dropped_break_the_engine(engine, monkeypatch):
    def fail(*args):
        raise RuntimeError("out of order")

    requests = mixed_requests(4)
    core, plain_abort, dropped = engine._llm.llm_engine, engine._llm.llm_engine.abort_request, []
    with monkeypatch.context() as patch:
        failing_step(engine, patch, fail, after=0)
        patch.setattr(core, "abort_request", lambda ids: dropped.extend(ids) or fail())
        with pytest.raises(RuntimeError, match="out of order"):
            engine.generate(requests)
    with pytest.raises(EngineBrokenError, match="broken: vLLM did not drop"):
        engine.generate(requests)
    plain_abort(dropped)


def test_steps_without_tokens_end_in_a_timeout_and_the_engine_goes_on(engine, monkeypatch):
    requests = mixed_requests()
    expected = tokens(engine.generate(requests))
    engine._options = dataclasses.replace(engine._options, timeout_s=0.3)
    with monkeypatch.context() as patch:
        failing_step(engine, patch, list)
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=r"no progress for `timeout_s` \(0.3 s\)"):
            engine.generate(requests)
        assert time.monotonic() - started < 5
    engine._options = dataclasses.replace(engine._options, timeout_s=60.0)
    assert tokens(engine.generate(requests)) == expected


def test_a_step_that_hangs_is_noticed_and_breaks_the_engine(engine, monkeypatch):
    engine._options = dataclasses.replace(engine._options, timeout_s=0.3)
    monkeypatch.setattr(watched_calls, "GRACE_S", 0.1)
    goes_on = threading.Event()
    with monkeypatch.context() as patch:
        failing_step(engine, patch, lambda: goes_on.wait(60) and [])
        started = time.monotonic()
        with pytest.raises(EngineBrokenError, match=r"no progress.*not come back"):
            engine.generate(mixed_requests())
        assert time.monotonic() - started < 5
        with pytest.raises(EngineBrokenError, match="broken: vLLM did not come back from a step"):
            engine.generate([GenerationRequest([3], 4)])
        goes_on.set()
        engine._calls.thread.submit(lambda: None).result(60)  # the hung call has ended by itself


def test_an_interrupt_from_the_keyboard_leaves_a_usable_engine(engine, monkeypatch):
    requests = mixed_requests()
    expected = tokens(engine.generate(requests))
    is_generating, plain_next = threading.Event(), watched_calls._next_result

    def interrupted(call, timeout_s):
        if not is_generating.is_set():
            assert is_generating.wait(60)
            raise KeyboardInterrupt
        return plain_next(call, timeout_s)

    with monkeypatch.context() as patch:
        patch.setattr(watched_calls, "_next_result", interrupted)
        failing_step(engine, patch, lambda: is_generating.set() or [])
        with pytest.raises(KeyboardInterrupt):
            engine.generate(requests)
    assert tokens(engine.generate(requests)) == expected
