"""From a name and plain settings to a method, and the errors on the way."""

import inspect
import re

import pytest

from prefix_rft_rllib import methods
from prefix_rft_rllib.core.advantages import TwoLevel
from prefix_rft_rllib.core.token_selection import TopEntropy
from prefix_rft_rllib.methods import build, by_name


def test_names_and_settings_make_the_method():
    assert by_name("prefix_rft") == build("prefix_rft") == methods.prefix_rft()
    made = build("prefix_rft", {"entropy_keep_fraction": 0.5, "advantage": "two_level"})
    assert made.rules[1].keep == TopEntropy(0.5)
    assert made.advantage == TwoLevel()
    assert build(made) is made


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(ValueError, match="Unknown method 'ppo'") as error:
        build("ppo")
    for name in methods.METHODS:
        assert repr(name) in str(error.value)


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_an_unknown_key_lists_the_known_ones(name):
    with pytest.raises(ValueError, match="Unknown key 'name'"):
        build(name, {"name": "x"})
    with pytest.raises(ValueError, match="Unknown key 'keep'") as error:
        build(name, {"keep": 0.2})
    for key in inspect.signature(methods.METHODS[name]).parameters:
        assert repr(key) in str(error.value)


NO_SHARE = (20, -0.1, "0.2", True, float("nan"))
NO_COUNT = (0, -1, 1.0, "1", True)
NO_COEFFICIENT = (-1.0, float("nan"), float("inf"), "1", True)
NO_FLAG = (1, "yes", None)
WRONG_VALUES = {
    "prefix_rft": {
        "entropy_keep_fraction": NO_SHARE,
        "num_prefix_rollouts": NO_COUNT,
        "low_start": (0.99, *NO_SHARE),
        "low_end": (0.99, *NO_SHARE),
        "high": (95, -0.1, "0.2"),
        "num_schedule_iterations": NO_COUNT,
        "advantage": ("gae", None),
    },
    "prefix_rft_adaptive": {
        "entropy_keep_fraction": NO_SHARE,
        "num_prefix_rollouts": NO_COUNT,
        "target": NO_SHARE,
        "width": (0.95, *NO_SHARE),
        "gain": (0, -0.5, "0.5"),
        "max_step": (0, *NO_SHARE),
        "rest_margin": NO_SHARE,
    },
    "rft": {},
    "grpo": {},
    "sft": {"num_rows_per_problem": NO_COUNT},
    "sft_rft": {
        "num_sft_iterations": NO_COUNT,
        "sft_lr": NO_COEFFICIENT,
        "sft_warmup_fraction": NO_SHARE,
    },
    "dft": {"num_rows_per_problem": NO_COUNT},
    "trsft": {"threshold": (0, *NO_SHARE), "num_rows_per_problem": NO_COUNT},
    "psft": {"clip_high": (0.0, -0.1, float("nan"), "1", True), "num_rows_per_problem": NO_COUNT},
    "rl_with_sft_loss": {"sft_coeff": NO_COEFFICIENT},
    "uft": {
        "imitation_coeff": NO_COEFFICIENT,
        "start": NO_SHARE,
        "end": NO_SHARE,
        "num_schedule_iterations": NO_COUNT,
        "max_chunks": NO_COUNT,
    },
    "luffy": {"gamma": (0.0, -0.1, float("nan"), "1"), "clip": NO_FLAG},
    "relift": {"buffer_size": NO_COUNT, "imitation_lr": NO_COEFFICIENT, "clip": NO_FLAG},
    "chord": {
        "phi": NO_FLAG,
        "mu_peak": NO_SHARE,
        "mu_valley": NO_SHARE,
        "num_warmup_iterations": (-1, 1.0, True),
        "num_decay_iterations": NO_COUNT,
    },
    "dr_po": {
        "low_start": (0.99, *NO_SHARE),
        "low_end": (0.99, *NO_SHARE),
        "high": (95, -0.1, "0.2"),
        "num_schedule_iterations": NO_COUNT,
    },
    "random_prefix": {"keep_fraction": NO_SHARE, "num_schedule_iterations": NO_COUNT},
    "bottom_entropy": {"keep_fraction": NO_SHARE, "num_schedule_iterations": NO_COUNT},
    "freeze_prefix": {"num_schedule_iterations": NO_COUNT},
    "update_all": {"num_schedule_iterations": NO_COUNT},
    "static_prefix_weight": {"weight": NO_COEFFICIENT, "num_schedule_iterations": NO_COUNT},
    "rft_on_policy_clip": {"entropy_keep_fraction": NO_SHARE},
    "uniform_schedule": {
        "low": (0.99, *NO_SHARE),
        "high": (0.01, 95),
        "entropy_keep_fraction": NO_SHARE,
    },
}


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_values_out_of_range_name_the_setting_of_the_config(name):
    wrong = WRONG_VALUES[name]
    assert set(inspect.signature(methods.METHODS[name]).parameters) == wrong.keys()
    for key, values in wrong.items():
        for value in values:
            # The setting, in the words of the config, and the value.
            with pytest.raises(ValueError, match=rf"`{key}`.*{re.escape(str(value))}"):
                build(name, {key: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"entropy_keep_fraction": 20}, r"`entropy_keep_fraction` must be .* got 20\..* 0\.2 for"),
        ({"low_start": 0.99}, r"`low_start` \(0.99\) must not be above `high` \(0.95\)"),
        ({"advantage": "gae"}, r"`advantage` must be one of 'group_mean', 'two_level', got 'gae'"),
    ],
)
def test_errors_say_what_is_allowed_and_what_to_try(settings, message):
    with pytest.raises(ValueError, match=message):
        build("prefix_rft", settings)


def test_settings_for_a_ready_method_are_refused():
    with pytest.raises(ValueError, match=r"'entropy_keep_fraction'.* no effect"):
        build(methods.rft(), {"entropy_keep_fraction": 0.2})
    with pytest.raises(ValueError, match="`method` must be a name"):
        build(methods.rft)
