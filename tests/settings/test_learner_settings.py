"""Settings of how learners hold and run the model: they reach the module, and wrong ones do not."""

import gymnasium as gym
import pytest
from ray.rllib.core import DEFAULT_MODULE_ID

from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.learners.learner_group import PrefixRFTLearnerGroup
from prefix_rft_rllib.learners.torch.parallelism import Parallelism, Sharded, parallelism_of
from prefix_rft_rllib.models.causal_lm import layers_of
from tests.learners.torch.learners import build_learner, two_groups, update
from tests.small_configs import small_config

SETTINGS = {
    "attn_implementation": "eager",
    "packing": True,
    "share_prompts": None,
    "activation_checkpointing": True,
    "parallelism": "fsdp",
    "lora": None,
}


def test_settings_are_kept_and_go_round():
    config = small_config("model").learners(num_learners=2, **SETTINGS)
    config.validate()
    for other in (config, PrefixRFTConfig.from_dict(config.to_dict())):
        assert {name: getattr(other, name) for name in SETTINGS} == SETTINGS
        assert other.num_learners == 2
    included = config._model_config_auto_includes
    assert all(included[name] == SETTINGS[name] for name in SETTINGS if name != "parallelism")
    config.learners(num_learners=1)
    assert config.packing is True  # what is not given stays
    with pytest.raises(TypeError, match="paralelism"):
        config.learners(paralelism="ddp")


def test_defaults_change_nothing_about_the_model():
    config = PrefixRFTConfig()
    assert {name: getattr(config, name) for name in SETTINGS} == {
        "attn_implementation": None,
        "packing": None,
        "share_prompts": False,
        "activation_checkpointing": False,
        "parallelism": "ddp",
        "lora": None,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"packing": "yes"},
            "`packing` must be True or False, or None for where the attention has kernels for it",
        ),
        ({"share_prompts": 1}, "`share_prompts` must be True or False, or None for where it saves"),
        (
            {"share_prompts": True, "packing": True},
            "`share_prompts=True` with `packing=True`: packed rows are computed one by one.",
        ),
        (
            {"share_prompts": True, "attn_implementation": "flash_attention_2"},
            "`share_prompts=True` with `attn_implementation='flash_attention_2'`",
        ),
        ({"activation_checkpointing": 1}, "`activation_checkpointing` must be True or False"),
        ({"attn_implementation": 2}, "`attn_implementation` must be a name"),
        ({"parallelism": "zero"}, "`parallelism` must be one of 'ddp', 'fsdp', got 'zero'"),
        ({"lora": 8}, "`lora` must be a dict"),
        ({"lora": {"r": 8}, "parallelism": "fsdp"}, "`lora` with `parallelism='fsdp'`"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    if isinstance(settings.get("lora"), dict):
        pytest.importorskip("peft")
    with pytest.raises(ValueError) as caught:
        small_config("model").learners(**settings).validate()
    assert message in str(caught.value)


def test_settings_reach_the_model(tiny_config):
    settings = {
        name: SETTINGS[name] for name in ("attn_implementation", "activation_checkpointing")
    }
    learner = build_learner(tiny_config.learners(packing=True, **settings))
    scorer = learner.module[DEFAULT_MODULE_ID].scorer
    assert scorer.lm.config._attn_implementation == "eager"
    assert scorer._packs
    assert all(layer.training for layer in layers_of(scorer.lm))
    update(learner, two_groups())
    assert all(layer.training for layer in layers_of(scorer.lm))  # RLlib's modes do not change it


@pytest.mark.parametrize(
    ("share_prompts", "min_saved_fraction"), [(True, 0.0), (None, 0.2), (False, None)]
)
def test_what_shared_prompts_must_save_reaches_the_model(
    tiny_config, share_prompts, min_saved_fraction
):
    learner = build_learner(tiny_config.learners(share_prompts=share_prompts))
    assert learner.module[DEFAULT_MODULE_ID].min_saved_fraction == min_saved_fraction


def test_an_attention_that_is_not_there_is_refused_by_name(tiny_config):
    with pytest.raises(ValueError, match="`attn_implementation`"):
        build_learner(tiny_config.learners(attn_implementation="no_such_attention"))


def test_a_learner_alone_holds_the_whole_model(tiny_config):
    for name, num_learners in (("fsdp", 0), ("fsdp", 1), ("ddp", 2)):
        assert type(parallelism_of(name, num_learners)) is Parallelism
    assert type(parallelism_of("fsdp", 2)) is Sharded
    learner = build_learner(tiny_config.learners(parallelism="fsdp"))
    update(learner, two_groups())


def test_an_error_of_the_first_learner_is_raised(tiny_config):
    tiny_config.validate()
    space = gym.spaces.Discrete(2)
    group = tiny_config.build_learner_group(spaces={DEFAULT_MODULE_ID: (space, space)})
    assert isinstance(group, PrefixRFTLearnerGroup)
    assert group.first_learner(lambda learner: learner.config.seed) == tiny_config.seed

    def fail(learner):
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        group.first_learner(fail)
    group.shutdown()
