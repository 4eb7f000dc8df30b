"""Options of sampling under which log-probabilities would be wrong are refused, everywhere."""

import logging

import pytest
from transformers import AutoModelForCausalLM

from prefix_rft_rllib.engines import check_engine_config
from prefix_rft_rllib.engines.sampling_options import REFUSED, unused_settings
from prefix_rft_rllib.settings.setup_checks import (
    _say_how_tokens_are_drawn,
    _say_which_tokens_are_compared,
)
from tests.engines.vllm.vllm_models import require_vllm
from tests.small_configs import config


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_each_option_is_refused_with_its_reason_wherever_it_is_written(name):
    for place in ("env_runners", "training", "learners", "evaluation"):
        with pytest.raises(ValueError, match=f"`{name}` cannot be set in config.{place}") as caught:
            getattr(config(), place)(**{name: 1})
        assert REFUSED[name] in str(caught.value)
    with pytest.raises(ValueError, match=f"`{name}` cannot be set in engine_config") as caught:
        check_engine_config("transformers", {name: 1})
    assert REFUSED[name] in str(caught.value)


@pytest.mark.parametrize("place", ["training", "learners", "evaluation"])
@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_what_belongs_to_the_env_runners_is_sent_there(place, name):
    with pytest.raises(ValueError, match=rf"config\.{place}\(\): use config.env_runners\("):
        getattr(config(), place)(**{name: 0.5})


@pytest.mark.parametrize("name", ["top_k", "min_p", "stop", "repetition_penalty"])
def test_a_dict_of_settings_and_an_attribute_are_refused_too(name):
    with pytest.raises(ValueError, match=f"`{name}` cannot be set in a config"):
        config().update_from_dict({name: 1})
    with pytest.raises(ValueError, match=f"`{name}` cannot be set in engine_config"):
        config().update_from_dict({"engine_config": {name: 1}}).validate()
    settings = config()
    setattr(settings, name, 1)
    with pytest.raises(ValueError, match=f"`{name}` cannot be set in a config"):
        settings.validate()


@pytest.mark.parametrize(
    "name", ["top_k", "min_p", "stop", "repetition_penalty", "temperature", "top_p"]
)
def test_engines_refuse_what_belongs_to_a_rollout(name):
    require_vllm()
    for engine in ("transformers", "vllm"):
        with pytest.raises(ValueError, match=f"`{name}` cannot be set in engine_config"):
            check_engine_config(engine, {name: 1})


@pytest.mark.parametrize("name", ["override_generation_config", "generation_config", "seed"])
def test_vllms_ways_to_sampling_defaults_are_refused_with_the_reason(name):
    require_vllm()
    with pytest.raises(ValueError, match=f"`{name}` of vLLM cannot be set") as caught:
        check_engine_config("vllm", {name: {"top_k": 20}})
    assert "log-probability would not be the one that is trained" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}),
        ({"eos_token_id": [1, 2], "bos_token_id": 0, "max_new_tokens": 9, "use_cache": True}, {}),
        ({"do_sample": True, "temperature": 1.0, "top_p": 1, "top_k": 0, "min_p": None}, {}),
        ({"repetition_penalty": 1.0, "bad_words_ids": None, "suppress_tokens": []}, {}),
        (
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "repetition_penalty": 1.05},
            {"temperature": 0.6, "top_k": 20, "repetition_penalty": 1.05},
        ),
        ({"top_k": 1, "stop_strings": ["x"]}, {"top_k": 1, "stop_strings": ["x"]}),
    ],
)
def test_what_a_models_own_settings_would_change_is_found(settings, expected):
    assert unused_settings(settings) == expected


def test_a_run_says_which_settings_of_the_model_it_does_not_follow(
    tiny_config, tiny_model_dir, tmp_path, caplog
):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    model.generation_config.update(do_sample=True, top_k=20, temperature=0.6)
    model.save_pretrained(tmp_path / "model")
    method = tiny_config.build_method()
    caplog.set_level(logging.WARNING)
    _say_how_tokens_are_drawn(tiny_config)
    _say_which_tokens_are_compared(tiny_config, method)
    assert not caplog.text
    tiny_config.training(model_path=str(tmp_path / "model")).env_runners(top_p=0.9)
    _say_how_tokens_are_drawn(tiny_config)
    _say_which_tokens_are_compared(tiny_config, method)
    assert all(text in caplog.text for text in ("top_k=20", "temperature=0.6", " sets "))
    assert "drawn with temperature 1 and top_p 0.9" in caplog.text
    assert "`top_p` is 0.9: rollouts come from the nucleus" in caplog.text
