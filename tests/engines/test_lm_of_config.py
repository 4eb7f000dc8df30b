"""Models from a configuration leave it, and the caller's random numbers, as they were."""

import copy

import pytest
import torch

from prefix_rft_rllib.engines.lm_of_config import lm_of_config, outline_of_config
from prefix_rft_rllib.engines.tied_weights import names_by_tensor
from tests.engines.models import CONFIGS


@pytest.mark.parametrize("build", [lm_of_config, outline_of_config])
def test_neither_configuration_nor_random_numbers_change(build):
    config = copy.deepcopy(CONFIGS["llama"])
    before, state = config.to_dict(), torch.get_rng_state()
    build(config)
    assert config.to_dict() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_dtype_and_attention_are_the_model_s_alone():
    config = copy.deepcopy(CONFIGS["llama"])
    before = config.to_dict()
    lm = lm_of_config(config, dtype=torch.bfloat16, attn_implementation="eager")
    assert {value.dtype for value in lm.parameters()} == {torch.bfloat16}
    assert lm.config._attn_implementation == "eager"
    assert config.to_dict() == before
    assert {value.dtype for value in lm_of_config(config).parameters()} == {torch.float32}


def test_an_outline_has_names_shapes_and_ties_and_no_values():
    outline = outline_of_config(CONFIGS["qwen2_tied"])
    lm = lm_of_config(CONFIGS["qwen2_tied"])
    assert {value.device.type for value in outline.parameters()} == {"meta"}
    shapes = {name: value.shape for name, value in lm.state_dict().items()}
    assert {name: value.shape for name, value in outline.state_dict().items()} == shapes
    both = [names_by_tensor(model.state_dict(keep_vars=True)) for model in (outline, lm)]
    assert both[0] == both[1]
    assert ["model.embed_tokens.weight", "lm_head.weight"] in both[0]
