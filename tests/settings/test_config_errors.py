"""One clear error for every wrong setting and every wrong combination of settings."""

import numpy as np
import pytest

from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.evaluation.held_out import evaluate_held_out
from tests.small_configs import config, error_of, small_config

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
    "clip_param": (
        20,
        "`clip_param` must be in (0, 1), got 20. It is a share, not a percentage: use 0.2",
    ),
    "clip_param_high": (
        0,
        "`clip_param_high` must be a finite number above 0, or None for `clip_param`",
    ),
    "dual_clip": (1.0, "`dual_clip` must be a finite number above 1"),
    "entropy_coeff": (-0.1, "`entropy_coeff` must be a finite number of at least 0"),
    "kl_coeff": (float("nan"), "`kl_coeff` must be a finite number of at least 0"),
    "weight_decay": ("0", "`weight_decay` must be a finite number of at least 0, got '0'"),
    "grad_clip": (
        -1.0,
        "`grad_clip` must be a finite number above 0, or None for no clipping, got -1.0",
    ),
    "adam_betas": ((0.9,), "`adam_betas` must be two numbers in [0, 1)"),
    "lr_schedule": ("linear", "`lr_schedule` must be one of 'constant', 'cosine', got 'linear'"),
    "lr_schedule_steps": (10, "`lr_schedule_steps` (10) has no effect"),
    "compute_dtype": ("fp8", "`compute_dtype` must be one of 'float32', 'bfloat16', got 'fp8'"),
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


@pytest.mark.parametrize("lr", [None, -1e-3, [[0, 1e-3], [100, 1e-4]], "1e-3", [0.9, 0.99]])
def test_the_learning_rate_is_one_number(lr):
    assert "`lr` must be a finite number of at least 0" in error_of(config(lr=lr))


@pytest.mark.parametrize("lr", [np.float32(0.5), np.int64(1), 1, 0.25])
def test_the_learning_rate_may_be_any_number(lr):
    settings = config(lr=lr)
    settings.validate()
    assert (settings.lr, type(settings.lr)) == (lr, float)


@pytest.mark.parametrize("env_config", [None, "x", 3, {1: 2}])
def test_env_config_is_a_dict_with_names(env_config):
    settings = config()
    settings.env_config = env_config
    message = f"`env_config` must be a dict of settings of the environment, got {env_config!r}."
    assert message in error_of(settings)


@pytest.mark.parametrize("interval", [-1, 1.5, float("nan"), "1", True])
def test_evaluations_are_whole_iterations_apart(interval):
    message = error_of(config().evaluation(evaluation_interval=interval))
    assert "`evaluation_interval` must be a whole number of at least 0" in message


@pytest.mark.parametrize("name", ["seed", "group_size", "lr", "num_learners", "gamma"])
def test_minus_one_reaches_the_checks_of_an_algorithm(name):
    settings = config()
    setattr(settings, name, -1)
    state = settings.get_state()
    assert state[name] == -1
    assert "shared_inputs" not in state and "buffer_size" not in state  # RLlib's own -1
    assert getattr(PrefixRFTConfig.from_state(state), name) == -1
    with pytest.raises(ValueError, match=f"`{name}`.*-1"):
        settings.build_algo()


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
        ({"engine": "vlm"}, "`engine` must be one of 'transformers', 'vllm', got 'vlm'"),
        ({"engine_config": 3}, "`engine_config` must be a dict"),
        ({"temperature": 0.0}, "`temperature` must be a finite number above 0"),
        ({"temperature": "hot"}, "`temperature` must be a finite number above 0"),
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


def test_checkpoints_that_stay_are_some_of_those_that_are_written():
    message = error_of(config().checkpointing(every=10, keep_every=25))
    assert "`keep_every` (25) must be a multiple of `every` (10)" in message
    assert "Try 20." in message
    for settings in ({"every": 10, "keep_every": 50}, {"keep_every": 25}, {"every": 10}):
        config().checkpointing(**settings).validate()
    message = error_of(config().checkpointing(accept_changed=["lr"]))
    assert "`accept_changed` must be a list of names, of data, demonstrations, prompts" in message
