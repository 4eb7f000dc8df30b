"""Settings: setters, round trips and derived values."""

import json

import pytest
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from prefix_rft_rllib import PrefixRFT, PrefixRFTConfig, methods
from prefix_rft_rllib.envs import TOY_BASE_MODEL, CodeEnv, MathEnv
from prefix_rft_rllib.learners.torch.default_prefix_rft_torch_rl_module import (
    DefaultPrefixRFTTorchRLModule,
)
from prefix_rft_rllib.learners.torch.prefix_rft_torch_learner import PrefixRFTTorchLearner
from tests.small_configs import HELD_OUT, config, error_of


def test_the_example_of_the_class_docstring_is_valid():
    settings = (
        PrefixRFTConfig()
        .environment("PrefixRFT/ToyArithmetic-v0")
        .env_runners(num_env_runners=2)
        .training(model_path="model/", method="prefix_rft", lr=1e-6)
    )
    settings.validate()
    assert settings.algo_class is PrefixRFT


def test_target_use_of_the_documentation_is_valid_with_the_papers_defaults():
    settings = (
        PrefixRFTConfig()
        .environment(
            "PrefixRFT/Math-v0",
            env_config={"data": "a", "max_prompt_tokens": 1024, "max_response_tokens": 8192},
        )
        .env_runners(num_env_runners=2, engine="transformers", engine_config={}, temperature=1.0)
        .learners(num_learners=1)
        .training(
            model_path="model",
            method="prefix_rft",
            method_config={"entropy_keep_fraction": 0.2},
            group_size=8,
            num_problems_per_iteration=128,
            num_problems_per_minibatch=64,
            num_epochs=1,
            lr=1e-6,
            clip_param=0.2,
        )
    )
    settings.validate()
    default = PrefixRFTConfig()
    for name in ("group_size", "num_problems_per_iteration", "num_problems_per_minibatch"):
        assert getattr(default, name) == getattr(settings, name)
    assert default.build_method() == settings.build_method() == methods.prefix_rft()
    assert settings.max_response_tokens == 8192


def test_setters_keep_what_is_not_given():
    settings = config(clip_param=0.3).training(lr=0.5).env_runners(top_p=0.9)
    settings.evaluation(held_out_num_samples=3).reporting(num_logged_groups=7)
    assert (settings.clip_param, settings.lr, settings.top_p) == (0.3, 0.5, 0.9)
    assert settings.temperature == 1.0
    assert (settings.held_out_num_samples, settings.num_logged_groups) == (3, 7)


def test_setters_copy_dicts():
    method_config = {"entropy_keep_fraction": 0.5}
    settings = config(method_config=method_config)
    method_config["entropy_keep_fraction"] = 0.1
    assert settings.method_config == {"entropy_keep_fraction": 0.5}


@pytest.mark.parametrize("setter", ["training", "env_runners", "evaluation", "reporting"])
def test_misspelled_keywords_are_type_errors(setter):
    with pytest.raises(TypeError, match="grup_size"):
        getattr(config(), setter)(grup_size=4)


def changed(settings: PrefixRFTConfig) -> dict:
    plain = PrefixRFTConfig().to_dict()
    return {key: value for key, value in settings.to_dict().items() if plain.get(key) != value}


@pytest.fixture
def unusual() -> PrefixRFTConfig:
    """A config in which settings of every setter differ from the defaults."""
    settings = config(clip_param_high=0.3, dual_clip=3.0, adam_betas=(0.9, 0.95), kl_coeff=0.1)
    settings.env_runners(temperature=0.7, top_p=0.9, engine_config={"max_batch_size": 2})
    settings.environment(env_config={"held_out_data": HELD_OUT})
    settings.evaluation(evaluation_interval=2, held_out_num_samples=3)
    settings.reporting(run_dir="runs/x", num_logged_groups=1).learners(num_learners=2)
    settings.validate()
    return settings


def test_round_trips_keep_every_setting(unusual):
    by_dict = PrefixRFTConfig.from_dict(unusual.to_dict())
    by_update = PrefixRFTConfig().update_from_dict(unusual.to_dict())
    by_state = PrefixRFTConfig.from_state(unusual.get_state())
    del by_state.__dict__["class"]  # RLlib's own note of what to build
    for other in (by_dict, by_update, by_state, unusual.copy(copy_frozen=False)):
        other.validate()
        assert changed(other) == changed(unusual)
        assert other.build_method() == unusual.build_method()


def test_update_from_dict_changes_one_key_as_tune_does(unusual):
    trial = PrefixRFTConfig().update_from_dict(unusual.to_dict())
    trial.update_from_dict({"lr": 0.25, "method_config": {"entropy_keep_fraction": 1.0}})
    trial.validate()
    assert trial.lr == 0.25
    # RLlib replaces a setting, it does not merge dicts of algorithms' own.
    assert trial.method_config["entropy_keep_fraction"] == 1.0
    assert trial.clip_param_high == 0.3


def test_copies_do_not_share_dicts(unusual):
    copied = unusual.copy(copy_frozen=False)
    copied.env_config["max_response_tokens"] = 7
    copied.method_config["high"] = 0.5
    assert unusual.max_response_tokens == 48
    assert "high" not in unusual.method_config


def test_frozen_settings_cannot_be_changed():
    settings = config()
    settings.freeze()
    with pytest.raises(AttributeError, match="frozen"):
        settings.lr = 1.0
    assert settings.copy(copy_frozen=False).training(lr=1.0).lr == 1.0


def test_settings_are_plain_data_apart_from_classes_and_functions(unusual):
    own = set(unusual.to_dict()) - set(AlgorithmConfig().to_dict())
    json.dumps({name: getattr(unusual, name) for name in own if not name.startswith("_")})


@pytest.mark.parametrize(
    ("num_learners", "rows"),
    [(0, 16), (1, 16), (2, 8), (3, 6)],  # 4 problems x 4 rollouts over the learners, rounded up
)
def test_rows_per_learner_are_derived(num_learners, rows):
    settings = config().learners(num_learners=num_learners)
    assert settings.train_batch_size_per_learner == rows
    settings.training(group_size=8)
    assert settings.train_batch_size_per_learner >= 2 * rows - 1
    assert settings.num_minibatches == 2


@pytest.mark.parametrize(("num_env_runners", "is_local"), [(0, True), (1, False), (2, False)])
def test_there_is_a_local_env_runner_only_without_remote_ones(num_env_runners, is_local):
    settings = config().env_runners(num_env_runners=num_env_runners)
    settings.validate()
    assert settings.create_local_env_runner is is_local


def test_default_classes_are_this_projects():
    settings = config()
    assert settings.get_default_learner_class() is PrefixRFTTorchLearner
    spec = settings.get_default_rl_module_spec()
    assert spec.module_class is DefaultPrefixRFTTorchRLModule
    model_config = config(kl_coeff=0.1).env_runners(temperature=0.5).model_config
    assert model_config["model_path"] == "model_directory"
    assert model_config["temperature"] == 0.5
    assert model_config["use_reference"] is True
    assert model_config["entropy_gradient"] is False


def test_the_models_tokenizer_is_used_unless_another_is_named():
    settings = config()
    assert settings.env_settings()["tokenizer"] == "model_directory"
    settings.environment(env_config={"tokenizer": "other"})
    assert settings.env_settings()["tokenizer"] == "other"
    toy = PrefixRFTConfig().environment("PrefixRFT/ToyArithmetic-v0")
    assert toy.env_settings()["tokenizer"] == str(TOY_BASE_MODEL)
    assert toy.training(model_path="mine").env_settings()["tokenizer"] == "mine"
    assert toy.env_settings()["data"] == "toy_arithmetic"


def test_a_ready_method_is_accepted_instead_of_a_name():
    settings = config(method=methods.rft(), method_config={})
    settings.validate()
    assert settings.build_method() is settings.method
    assert "no effect" in error_of(config(method=methods.rft()))


def test_an_environment_class_is_accepted_instead_of_an_id():
    settings = config()
    settings.environment(MathEnv)
    settings.validate()
    assert settings.env_settings()["tokenizer"] == "model_directory"


@pytest.mark.parametrize(
    ("settings", "cap"),
    [
        ({}, None),
        ({"max_weight_staleness": 1}, 2.0),
        ({"max_weight_staleness": 1, "importance_weight_cap": None}, None),
        ({"max_weight_staleness": 1, "importance_weight_cap": 5.0}, 5.0),
        ({"importance_weight_cap": 3}, 3),
    ],
)
def test_stale_rollouts_are_corrected_for_unless_the_config_says_otherwise(settings, cap):
    assert config(**settings).applied_importance_weight_cap == cap


@pytest.mark.parametrize(
    ("env", "verifier"),
    [
        ("PrefixRFT/Code-v0", "code"),
        ("PrefixRFT/ToyCode-v0", "code"),
        (CodeEnv, "code"),
        ("PrefixRFT/Math-v0", "math"),
    ],
)
def test_the_environments_own_defaults_are_the_drivers_too(env, verifier):
    settings = PrefixRFTConfig().environment(env, env_config={"data": "problems.jsonl"})
    assert settings.env_settings()["verifier"] == verifier
    settings.environment(env_config={"verifier": "domain"})
    assert settings.env_settings()["verifier"] == "domain"
