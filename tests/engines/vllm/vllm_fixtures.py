"""Fixtures of the vLLM engine's tests; a module names this one in `pytest_plugins`."""

import pytest

from prefix_rft_rllib.engines import GenerationRequest, build_engine
from tests.engines.models import EOS
from tests.engines.vllm.vllm_models import OPTIONS, require_vllm, vllm_config, vllm_model


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def loaded(request):
    """An engine, the model whose weights it has first, and one with other weights."""
    require_vllm()
    config = vllm_config(tied=request.param)
    engine = build_engine("vllm", config, eos_token_ids=[EOS], **OPTIONS)
    with pytest.raises(RuntimeError, match="load_weights"):
        engine.generate([GenerationRequest([3], 4)])
    models = [vllm_model(tied=request.param, seed=seed) for seed in (0, 1)]
    yield engine, *models
    engine.close()


@pytest.fixture
def engine(loaded, monkeypatch):
    """The engine with the first model's weights."""
    engine, model, _ = loaded
    for holder, name in ((engine, "_broken"), (engine, "_options"), (engine._calls, "is_stuck")):
        monkeypatch.setattr(holder, name, getattr(holder, name))  # put back what a test breaks
    engine.load_weights(model.state_dict(), version=1)
    return engine


@pytest.fixture
def model(loaded):
    return loaded[1]


@pytest.fixture
def new_model(loaded):
    return loaded[2]
