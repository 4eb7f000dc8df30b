"""Every setting of RLlib is used, kept by RLlib for itself, or refused with what to use instead."""

import difflib
import inspect

import pytest
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback

from prefix_rft_rllib import PrefixRFT, PrefixRFTConfig
from prefix_rft_rllib.settings.rllib_settings import (
    BOOKKEEPING,
    REFUSED,
    UNCALLED_HOOKS,
    UNUSED_BY_SETS,
    USED,
)
from tests.small_configs import HELD_OUT, config, error_of, small_config


def test_every_setting_of_rllib_is_in_exactly_one_table():
    names = list(vars(AlgorithmConfig()))
    unknown = {
        name for name in names if (name in USED) + (name in BOOKKEEPING) + (name in REFUSED) != 1
    }
    assert not unknown, "sort these into one table of rllib_settings.py"
    assert {*USED, *BOOKKEEPING, *REFUSED} == set(names)
    assert set(UNUSED_BY_SETS) < USED


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_setting_that_does_nothing_is_named_with_its_value_and_the_reason(name):
    settings = config()
    setattr(settings, name, "another")
    message = error_of(settings)
    assert f"`{name.lstrip('_')}` ('another') {REFUSED[name]}" in message


def test_a_fresh_config_may_be_validated_again_and_again():
    settings = config()
    for _ in range(2):
        settings.validate()
    settings.copy(copy_frozen=False).validate()
    PrefixRFTConfig.from_dict(settings.to_dict()).validate()
    PrefixRFTConfig.from_state(settings.get_state()).validate()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.environment(clip_rewards=True),
            "`clip_rewards` (True) has no effect: rewards",
        ),
        (lambda c: c.environment(normalize_actions=False), "`normalize_actions` (False)"),
        (lambda c: c.environment(clip_actions=True), "`clip_actions` (True)"),
        (lambda c: c.environment(action_space="x"), "`action_space` ('x')"),
        (lambda c: c.env_runners(compress_observations=True), "`compress_observations` (True)"),
        (lambda c: c.env_runners(observation_filter="MeanStdFilter"), "`observation_filter`"),
        (lambda c: c.env_runners(batch_mode="truncate_episodes"), "rollouts are whole responses"),
        (lambda c: c.env_runners(env_to_module_connector=list), "`env_to_module_connector`"),
        (lambda c: c.env_runners(module_to_env_connector=list), "`module_to_env_connector`"),
        (lambda c: c.framework("tf2"), "`framework_str` ('tf2') belongs to RLlib's old API stack"),
        (lambda c: c.framework(torch_compile_learner=True), "`torch_compile_learner` (True)"),
        (lambda c: c.resources(num_gpus=1), "`num_gpus` (1)"),
        (lambda c: c.offline_data(input_="rows.json"), "`input_` ('rows.json')"),
        (lambda c: c.offline_data(output="folder"), "the run directory has the rollouts"),
        (
            lambda c: c.training(model={"fcnet_hiddens": [8]}),
            "the model is the one at `model_path`",
        ),
        (lambda c: c.training(optimizer={"eps": 1}), "the optimizer is AdamW"),
        (lambda c: c.multi_agent(policies={"a", "b"}), "`policies` (['a', 'b'])"),
        (lambda c: c.callbacks(on_episode_step=print), "`callbacks_on_episode_step`"),
        (lambda c: c.reporting(metrics_num_episodes_for_smoothing=5), "metrics are those of one"),
        (
            lambda c: c.api_stack(
                enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
            ),
            "`enable_rl_module_and_learner` (False) belongs to RLlib's old API stack",
        ),
        (lambda c: c.debugging(seed=None), "`seed` must be a whole number in [0, 4294967295]"),
        (lambda c: c.debugging(seed=True), "got True"),
        (lambda c: c.debugging(seed=-1), "got -1"),
        (lambda c: c.debugging(seed=1.0), "got 1.0"),
    ],
)
def test_setters_of_rllib_that_do_nothing_are_refused(change, message):
    assert message in error_of(change(config()))


def test_a_callback_that_is_never_called_is_refused():
    class Steps(RLlibCallback):
        def on_episode_step(self, **kwargs):
            pass

    class Ends(RLlibCallback):
        def on_episode_end(self, **kwargs):
            pass

    config().callbacks(Ends).validate()
    for given in (Steps, [Ends, Steps]):
        assert "`Steps.on_episode_step` is never called" in error_of(config().callbacks(given))


def test_every_callback_of_rllib_is_called_or_refused():
    hooks = {name for name in dir(RLlibCallback) if name.startswith("on_")}
    called = {name.removeprefix("callbacks_") for name in USED if name.startswith("callbacks_on_")}
    assert called | UNCALLED_HOOKS.keys() == hooks
    assert not called & UNCALLED_HOOKS.keys()
    for hook, reason in UNCALLED_HOOKS.items():
        mine = type("Mine", (RLlibCallback,), {hook: lambda self, **kwargs: None})
        assert f"`Mine.{hook}` {reason}" in error_of(config().callbacks(mine))


def test_every_argument_of_rllibs_evaluation_has_an_effect_or_is_refused():
    arguments = inspect.signature(AlgorithmConfig.evaluation).parameters
    names = {name for name in arguments if name in vars(AlgorithmConfig())}
    checked = {"evaluation_num_env_runners", "evaluation_parallel_to_training", "evaluation_config"}
    used = {"evaluation_interval", "custom_evaluation_function", *checked}
    assert names == used | UNUSED_BY_SETS.keys() | (names & REFUSED.keys())
    # Other names of attributes, one of them RLlib's oldest: it warns and goes on.
    others = set(arguments) - names - {"self", "always_attach_evaluation_results"}
    assert others == {"evaluation_num_workers", "dataset_num_iters_per_offline_eval_runner"}
    assert config().evaluation(evaluation_num_workers=2).evaluation_num_env_runners == 2
    settings = config().evaluation(dataset_num_iters_per_offline_eval_runner=7)
    assert "`dataset_num_iters_per_eval_runner` (7) has no effect" in error_of(settings)


@pytest.mark.parametrize("name", UNUSED_BY_SETS)
def test_settings_of_rllibs_own_evaluation_are_refused_for_sets(name):
    settings = small_config("model", {"held_out_data": HELD_OUT})
    settings.evaluation(evaluation_interval=1)
    settings.validate()
    setattr(settings, name, 7)
    message = error_of(settings)
    assert f"`{name}` (7) has no effect: {UNUSED_BY_SETS[name]}" in message
    assert "custom_evaluation_function=None" in message


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("learning_rate", "Did you mean `lr`?"),
        ("kl_coef", "Did you mean `kl_coeff`"),
        ("num_problems_per_iter", "`num_problems_per_iteration`"),
        ("num_generations", "`group_size`"),
        ("training", "Unknown setting `training`"),
        (4, "Unknown setting `4`"),
        ("qqqqqq", "would have no effect. The settings"),
    ],
)
def test_an_unknown_setting_is_an_error_with_the_nearest_known_ones(name, hint):
    for fail in (
        lambda: PrefixRFTConfig.from_dict({"lr": 1e-3, name: 1}),
        lambda: config().update_from_dict({name: 1}),
        lambda: PrefixRFT.default_resource_request({**config().to_dict(), name: 1}),
    ):
        with pytest.raises(ValueError, match=f"Unknown setting `{name}`") as caught:
            fail()
        assert hint in str(caught.value)
    if name not in ("training", 4):
        settings = config()
        setattr(settings, name, 1)
        assert hint in error_of(settings)


def test_fields_of_a_subclass_are_settings():
    class Mine(PrefixRFTConfig):
        def __init__(self, algo_class=None):
            super().__init__(algo_class)
            self.mine = 1

    assert Mine.from_dict({"mine": 2}).mine == 2
    with pytest.raises(ValueError, match="Unknown setting `mine`"):
        PrefixRFTConfig.from_dict({"mine": 2})


def test_search_spaces_and_tunes_own_keys_pass():
    given = {"lr": tune.grid_search([1e-3]), "__trial_info__": object(), "num_workers": 0}
    assert PrefixRFTConfig.from_dict(given).num_env_runners == 0


def test_no_other_name_is_one_that_difflib_would_find():
    assert difflib.get_close_matches("learning_rate", ["lr"]) == []
