"""The vLLM engine's settings: what is refused before any actor starts."""

import importlib.util

import pytest

from prefix_rft_rllib.engines import build_engine, check_engine_config
from prefix_rft_rllib.engines.vllm.options import RESERVED, VLLMEngineOptions
from tests.engines.vllm.vllm_models import require_vllm, vllm_config
from tests.small_configs import error_of, small_config


@pytest.fixture
def _vllm_is_installed():
    require_vllm()


def test_vllm_in_the_drivers_process_is_an_error():
    config = small_config("model_directory").env_runners(engine="vllm", num_env_runners=0)
    message = error_of(config)
    for part in ("engine='vllm'", "num_env_runners=0", "num_env_runners=1", "transformers"):
        assert part in message


def test_vllm_in_remote_env_runners_is_valid_with_and_without_held_out_problems():
    config = small_config("model_directory", {"held_out_fraction": 0.25})
    config.env_runners(engine="vllm", num_env_runners=1).validate()
    config.evaluation(evaluation_interval=1).validate()
    config.get_evaluation_config_object().validate()


def test_rllibs_own_evaluation_needs_its_own_env_runners():
    config = small_config("model_directory").env_runners(engine="vllm", num_env_runners=1)
    config.evaluation(evaluation_interval=1, custom_evaluation_function=None)
    assert "evaluation_num_env_runners=1" in error_of(config)
    config.evaluation(evaluation_num_env_runners=1).validate()


def test_a_missing_vllm_is_an_error_that_says_how_to_install_it(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "vllm" else find_spec(name)
    )
    advice = r"prefix_rft_rllib\[vllm\].*requirements-cpu\.txt"
    with pytest.raises(ImportError, match=advice):
        check_engine_config("vllm", {})
    with pytest.raises(ImportError, match=advice):
        build_engine("vllm", vllm_config(), eos_token_ids=[1])


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_arguments_that_are_the_engines_own_are_refused_with_the_reason(name):
    with pytest.raises(ValueError, match=f"`{name}` of vLLM cannot be set") as caught:
        check_engine_config("vllm", {name: None})
    assert RESERVED[name] in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, float("nan"), True, "10"])
def test_the_time_limit_is_a_positive_number(value):
    with pytest.raises(ValueError, match="timeout_s"):
        VLLMEngineOptions(timeout_s=value)


def test_defaults_of_a_device_are_overridden_by_the_users():
    options = VLLMEngineOptions(llm_arguments={"dtype": "float16", "max_num_seqs": 8})
    on_cpu, on_gpu = options.arguments_for(is_cpu=True), options.arguments_for(is_cpu=False)
    assert on_cpu["dtype"] == on_gpu["dtype"] == "float16"
    assert on_cpu["max_num_seqs"] == on_gpu["max_num_seqs"] == 8
    assert on_cpu["enforce_eager"] and "enforce_eager" not in on_gpu
    plain = VLLMEngineOptions()
    assert plain.arguments_for(is_cpu=True)["dtype"] == "float32"
    assert plain.arguments_for(is_cpu=False)["dtype"] == "bfloat16"


@pytest.mark.parametrize("is_cpu", [True, False])
def test_several_workers_are_processes_of_this_machine_unless_told_otherwise(is_cpu):
    backend = "distributed_executor_backend"
    for arguments, expected in [
        ({}, None),
        ({"tensor_parallel_size": 1}, None),
        ({"tensor_parallel_size": 2}, "mp"),
        ({"pipeline_parallel_size": 2}, "mp"),
        ({"tensor_parallel_size": 2, backend: "ray"}, "ray"),
    ]:
        options = VLLMEngineOptions(llm_arguments=arguments)
        assert options.arguments_for(is_cpu=is_cpu).get(backend) == expected


@pytest.mark.integration
@pytest.mark.usefixtures("_vllm_is_installed")
def test_an_unknown_argument_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match="'max_model_length'") as caught:
        check_engine_config("vllm", {"max_model_length": 100})
    message = str(caught.value)
    for part in ("Did you mean 'max_model_len'", "timeout_s", "gpu_memory_utilization"):
        assert part in message
    assert not any(f" {name}," in message for name in RESERVED)
    check_engine_config("vllm", {"max_model_len": 100, "timeout_s": 5})


@pytest.mark.integration
@pytest.mark.usefixtures("_vllm_is_installed")
def test_every_reserved_argument_is_one_of_vllms():
    from dataclasses import fields

    from vllm.engine.arg_utils import EngineArgs

    assert set(RESERVED) <= {argument.name for argument in fields(EngineArgs)}
