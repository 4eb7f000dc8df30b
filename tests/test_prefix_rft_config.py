"""Settings: setters, round trips, derived values, and one clear error for every wrong value."""

import json

import pytest
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from prefix_rft_rllib import PrefixRFT, PrefixRFTConfig, methods
from prefix_rft_rllib.envs import TOY_BASE_MODEL, MathEnv
from prefix_rft_rllib.evaluation import evaluate_held_out
from prefix_rft_rllib.torch.default_prefix_rft_torch_rl_module import DefaultPrefixRFTTorchRLModule
from prefix_rft_rllib.torch.prefix_rft_torch_learner import PrefixRFTTorchLearner
from tests.small_configs import HELD_OUT, small_config


def config(*, model_path: str | None = "model_directory", **training) -> PrefixRFTConfig:
    """Valid settings; nothing is read from the model's directory here."""
    return small_config(model_path, **training)


def error_of(settings: PrefixRFTConfig) -> str:
    with pytest.raises(ValueError) as caught:
        settings.validate()
    return str(caught.value)


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


WRONG_TRAINING = {
    "method": ("ppo", "Unknown method 'ppo'. Known methods: 'prefix_rft', 'prefix_rft_adaptive'"),
    "method_config": (
        {"entropy_keep_fraction": 20},
        "`entropy_keep_fraction` must be in [0, 1], got 20. It is a share, not a percentage: "
        "use 0.2 for 20%.",
    ),
    "group_size": (1, "`group_size` (1) must be at least 2"),
    "num_problems_per_iteration": (0, "`num_problems_per_iteration` must be a whole number"),
    "num_problems_per_minibatch": (2.0, "`num_problems_per_minibatch` must be a whole number"),
    "num_epochs": (True, "`num_epochs` must be a whole number"),
    "max_tokens_per_microbatch": (0, "`max_tokens_per_microbatch` must be a whole number"),
    "lr_warmup_steps": (-1, "`lr_warmup_steps` must be a whole number of at least 0"),
    "clip_param": (20, "`clip_param` must be in (0, 1), got 20"),
    "clip_param_high": (0, "`clip_param_high` must be above 0"),
    "dual_clip": (1.0, "`dual_clip` must be above 1"),
    "entropy_coeff": (-0.1, "`entropy_coeff` must be a number of at least 0"),
    "kl_coeff": (float("nan"), "`kl_coeff` must be a number of at least 0"),
    "weight_decay": ("0", "`weight_decay` must be a number of at least 0, got '0'"),
    "grad_clip": (-1.0, "`grad_clip` must be above 0, or None, got -1.0"),
    "adam_betas": ((0.9,), "`adam_betas` must be two numbers in [0, 1)"),
    "lr_schedule": ("linear", "Unknown `lr_schedule` 'linear'; known: constant, cosine"),
    "lr_schedule_steps": (10, "`lr_schedule_steps` (10) has no effect"),
    "compute_dtype": ("fp8", "Unknown `compute_dtype` 'fp8'; known: float32, bfloat16"),
    "model_path": (None, "`model_path` is not set"),
    # RLlib's own settings that are derived or unused here.
    "train_batch_size_per_learner": (64, "set `num_problems_per_iteration` (problems over all"),
    "train_batch_size": (64, "set `num_problems_per_iteration` instead"),
    "minibatch_size": (64, "set `num_problems_per_minibatch` (problems over all learners)"),
    "gamma": (0.9, "`gamma` (0.9) has no effect"),
    "shuffle_batch_per_epoch": (True, "`shuffle_batch_per_epoch` (True) has no effect"),
}


@pytest.mark.parametrize("name", WRONG_TRAINING)
def test_a_wrong_training_setting_is_one_clear_error(name):
    value, message = WRONG_TRAINING[name]
    assert message in error_of(config(**{name: value}))


@pytest.mark.parametrize("value", [2, -1, True, None, 0.5, "one"])
def test_a_staleness_other_than_0_and_1_is_an_error(value):
    message = error_of(config(max_weight_staleness=value).env_runners(num_env_runners=1))
    assert "`max_weight_staleness` must be 0 (on-policy) or 1" in message
    assert f"got {value!r}" in message


def test_sampling_ahead_needs_remote_env_runners_and_rollouts():
    message = error_of(config(max_weight_staleness=1))
    assert "`num_env_runners` is 0: set config.env_runners(num_env_runners=1)" in message
    config(max_weight_staleness=1).env_runners(num_env_runners=1).validate()
    sft = config(max_weight_staleness=1, method="sft", method_config={})
    message = error_of(sft.env_runners(num_env_runners=1))
    assert "`max_weight_staleness` (1) has no effect: method 'sft' samples nothing" in message


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


@pytest.mark.parametrize("lr", [None, -1e-3, [[0, 1e-3], [100, 1e-4]]])
def test_the_learning_rate_is_one_number(lr):
    assert "`lr` must be a number of at least 0" in error_of(config(lr=lr))


def test_an_unknown_method_config_key_lists_the_known_ones():
    message = error_of(config(method_config={"entropy_keep": 0.2}))
    assert "Unknown key 'entropy_keep' in `method_config` of method 'prefix_rft'" in message
    assert "'entropy_keep_fraction', 'num_prefix_rollouts'" in message
    assert "Known keys: none" in error_of(config(method="rft", method_config={"high": 1}))
    assert "`method_config` must be a dict" in error_of(config(method_config=["high"]))


def test_more_prefix_rollouts_than_rollouts_is_an_error():
    message = error_of(config(method_config={"num_prefix_rollouts": 5}))
    assert "`num_prefix_rollouts` (5)" in message


@pytest.mark.parametrize(
    ("problems", "minibatch", "advice"),
    [
        (128, 48, "Try 32 or 64."),
        (12, 5, "Try 4 or 6."),
        (7, 3, "Try 1 or 7."),
        (4, 8, "Try 2 or 4."),
    ],
)
def test_a_minibatch_that_does_not_divide_names_sizes_that_do(problems, minibatch, advice):
    message = error_of(
        config(num_problems_per_iteration=problems, num_problems_per_minibatch=minibatch)
    )
    assert f"`num_problems_per_minibatch` ({minibatch}) must divide" in message
    assert f"`num_problems_per_iteration` ({problems})" in message
    assert advice in message


def test_a_cosine_schedule_needs_its_length():
    assert "needs `lr_schedule_steps`" in error_of(config(lr_schedule="cosine"))
    config(lr_schedule="cosine", lr_schedule_steps=10).validate()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "vlm"}, "Unknown `engine` 'vlm'; known: transformers"),
        ({"engine_config": 3}, "`engine_config` must be a dict"),
        ({"temperature": 0.0}, "`temperature` must be above 0"),
        ({"temperature": "hot"}, "`temperature` must be above 0"),
        ({"top_p": 1.5}, "`top_p` must be in (0, 1]"),
        ({"explore": False}, "`explore=False` is for evaluations"),
        ({"rollout_fragment_length": 10}, "`rollout_fragment_length` (10) has no effect"),
    ],
)
def test_a_wrong_rollout_setting_is_one_clear_error(settings, message):
    assert message in error_of(config().env_runners(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_logged_groups": -1}, "`num_logged_groups` must be a whole number"),
        ({"min_time_s_per_iteration": 5}, "would repeat an iteration"),
        ({"min_sample_timesteps_per_iteration": 5}, "would repeat an iteration"),
    ],
)
def test_a_wrong_reporting_setting_is_one_clear_error(settings, message):
    assert message in error_of(config().reporting(**settings))


def test_an_unknown_environment_lists_the_known_ids():
    settings = config().environment("PrefixRFT/Maths-v0")
    message = error_of(settings)
    assert "Unknown environment 'PrefixRFT/Maths-v0'" in message
    assert "PrefixRFT/Math-v0, PrefixRFT/ToyArithmetic-v0" in message
    assert "No environment is set" in error_of(PrefixRFTConfig().training(model_path="model"))


@pytest.mark.parametrize(
    ("env_config", "message"),
    [
        ({"max_response_token": 9}, "Unknown env_config key 'max_response_token'"),
        ({"held_out_fraction": 20}, "use 0.2 for 20%"),
        ({"max_prompt_tokens": 0}, "env_config['max_prompt_tokens']"),
        ({"data": None}, "env_config['data'] is missing"),
    ],
)
def test_wrong_env_settings_are_found_without_loading_data(env_config, message):
    assert message in error_of(small_config("model_directory", env_config))


def test_evaluation_needs_held_out_problems():
    settings = config().evaluation(evaluation_interval=5)
    assert "`evaluation_interval` (5) is set, but no problem is held out" in error_of(settings)
    settings.environment(env_config={"held_out_fraction": 0.5})
    settings.validate()
    assert settings.custom_evaluation_function is evaluate_held_out


def test_rllibs_default_evaluation_needs_no_held_out_problems():
    settings = config().evaluation(evaluation_interval=5, custom_evaluation_function=None)
    settings.evaluation(evaluation_duration=3).validate()


@pytest.mark.parametrize("setting", [{"evaluation_num_env_runners": 1}, {"evaluation_duration": 3}])
def test_settings_that_held_out_evaluation_does_not_use_are_refused(setting):
    settings = config().evaluation(**setting)
    assert f"`{next(iter(setting))}` ({next(iter(setting.values()))})" in error_of(settings)
    assert "custom_evaluation_function=None" in error_of(settings)
