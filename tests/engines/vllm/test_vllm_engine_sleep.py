"""The order of vLLM's sleep calls; on CPUs vLLM cannot sleep, so its two methods are stand-ins."""

import dataclasses

import pytest

from prefix_rft_rllib.engines import EngineBrokenError, GenerationRequest
from tests.engines.vllm.vllm_models import TOLERANCE, logp_errors, mixed_requests

pytest_plugins = ("tests.engines.vllm.vllm_fixtures",)
pytestmark = [
    pytest.mark.integration,
    pytest.mark.parametrize("loaded", [True], ids=["tied"], indirect=True),
]


@pytest.fixture
def calls(engine, monkeypatch):
    """What is called in vLLM, in order."""
    noted = []
    llm, core = engine._llm, engine._llm.llm_engine
    plain_rpc, plain_reset = core.collective_rpc, core.reset_prefix_cache
    arguments = {**engine._options.llm_arguments, "enable_sleep_mode": True}
    options = dataclasses.replace(engine._options, llm_arguments=arguments)

    def rpc(method, **kwargs):
        noted.append(method)
        return plain_rpc(method, **kwargs)

    def reset():
        noted.append("reset_prefix_cache")
        return plain_reset()

    monkeypatch.setattr(engine, "_options", options)
    monkeypatch.setattr(llm, "sleep", lambda level: noted.append(("sleep", level)))
    monkeypatch.setattr(llm, "wake_up", lambda tags: noted.append(("wake_up", tags)))
    monkeypatch.setattr(core, "collective_rpc", rpc)
    monkeypatch.setattr(core, "reset_prefix_cache", reset)
    return noted


def test_new_weights_wake_the_engine_memory_first_and_cache_last(engine, new_model, calls):
    engine.sleep()
    assert calls == [("sleep", 2)]
    assert engine.weights_version is None
    with pytest.raises(RuntimeError, match="no weights yet"):
        engine.generate([GenerationRequest([3], 4)])
    engine.load_weights(new_model.state_dict(), version=6)
    assert calls[1:] == [
        ("wake_up", ["weights"]),
        "reload_weights",
        ("wake_up", ["kv_cache"]),
        "reset_prefix_cache",
    ]
    requests = mixed_requests(4)
    assert logp_errors(new_model, requests, engine.generate(requests)).max() < TOLERANCE


def test_weights_for_an_engine_that_is_awake_wake_nothing(engine, new_model, calls):
    engine.load_weights(new_model.state_dict(), version=6)
    assert calls == ["reload_weights", "reset_prefix_cache"]


def test_directly_sent_weights_wake_it_too(engine, calls, monkeypatch):
    monkeypatch.setattr(engine._llm.llm_engine, "collective_rpc", lambda m, **k: calls.append(m))
    engine.sleep()
    engine._receiver.start()
    engine._receiver.receive({})
    engine._receiver.finish(8)
    assert calls[1:] == [
        ("wake_up", ["weights"]),
        "start_weight_update",
        "update_weights",
        "finish_weight_update",
        ("wake_up", ["kv_cache"]),
        "reset_prefix_cache",
    ]
    assert engine.weights_version == 8


def test_without_the_option_nothing_happens(engine, monkeypatch):
    monkeypatch.setattr(engine._llm, "sleep", lambda level: pytest.fail("slept"))
    engine.sleep()
    assert engine.weights_version == 1


def test_an_engine_that_cannot_sleep_is_broken(engine, calls, monkeypatch):
    def fail(level):
        raise RuntimeError("Memory usage increased")

    monkeypatch.setattr(engine._llm, "sleep", fail)
    with pytest.raises(EngineBrokenError, match="Memory usage increased"):
        engine.sleep()
