"""Settings of resampling and importance weights, and every method as a setting of the config."""

import pytest

from prefix_rft_rllib.methods import METHODS
from tests.small_configs import config, error_of


@pytest.mark.parametrize("value", [0.99, 0, -1, "2", True, float("inf"), float("nan")])
def test_a_cap_on_importance_weights_is_a_number_of_at_least_1(value):
    message = error_of(config(importance_weight_cap=value))
    assert (
        "`importance_weight_cap` must be a finite number of at least 1, None for no importance"
        in message
    )
    config(importance_weight_cap=1).validate()


@pytest.mark.parametrize("rounds", [-1, 0.5, True, "2", None])
def test_resampling_rounds_are_a_whole_number(rounds):
    message = error_of(config(max_resampling_rounds=rounds))
    assert "`max_resampling_rounds` must be a whole number of at least 0" in message


def test_resampling_needs_rollouts():
    settings = {"method_config": {}, "max_resampling_rounds": 2}
    message = error_of(config(method="sft", **settings))
    assert "`max_resampling_rounds` (2) has no effect: method 'sft' samples nothing" in message
    # One stage that samples is enough.
    config(method="sft_rft", **settings).validate()
    config(method="sft", method_config={}).validate()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_valid_setting_by_its_name(name):
    settings = config(method=name, method_config={})
    settings.validate()
    assert settings.build_method() == METHODS[name]()
    message = error_of(config(method=name, method_config={"unknown": 1}))
    assert f"Unknown key 'unknown' in `method_config` of method {name!r}" in message


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("relift", {"buffer_size": 0}),
        ("relift", {"imitation_lr": -1e-3}),
        ("sft_rft", {"sft_warmup_fraction": 10}),
        ("luffy", {"gamma": 0}),
        ("chord", {"mu_peak": 50}),
        ("prefix_rft_adaptive", {"width": 0.95}),
    ],
)
def test_validating_finds_a_method_setting_out_of_range(name, settings):
    ((key, value),) = settings.items()
    message = error_of(config(method=name, method_config=settings))
    assert f"`{key}`" in message
    assert str(value) in message


@pytest.mark.parametrize("name", ["luffy", "prefix_rft", "grpo", "sft_rft"])
def test_a_group_of_one_is_an_error_where_rollouts_are_compared(name):
    message = error_of(config(method=name, method_config={}, group_size=1))
    assert "`group_size` (1) must be at least 2" in message
    config(method="sft", method_config={}, group_size=1).validate()
