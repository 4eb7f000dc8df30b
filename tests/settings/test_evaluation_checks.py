"""Mistakes in what is evaluated during training are errors that say what to do."""

import re
from pathlib import Path

import pytest

from prefix_rft_rllib.evaluation.sets import (
    SET_DECLARATIONS,
    EvaluationSet,
    sets_to_evaluate,
)
from prefix_rft_rllib.settings.rllib_settings import ENV_RUNNER_OVERRIDES, SAMPLING_OVERRIDES
from tests.small_configs import HELD_OUT, config, error_of, small_config

GOOD = {
    "new": {"num_samples": 2, "temperature": 0.6, "top_p": 0.9, "max_response_tokens": 20},
    "words": {"benchmark": "word_problems", "greedy": False, "num_problems": 3},
}


def settings_of(**evaluation):
    settings = small_config("model", {"held_out_data": HELD_OUT})
    return settings.evaluation(**{"evaluation_interval": 1, **evaluation})


def test_sets_may_be_held_out_ones_and_benchmarks_and_survive_a_copy():
    settings = settings_of(evaluation_sets=GOOD, demonstration_probes={"train": 2, "new": 1})
    settings.validate()
    assert type(settings)().update_from_dict(settings.to_dict()).evaluation_sets == GOOD
    sets = sets_to_evaluate(GOOD, ["new"])
    assert sets["new"].num_samples == 2
    assert sets["words"] == EvaluationSet(benchmark="word_problems", greedy=False, num_problems=3)
    assert sets_to_evaluate(None, ["new"]) == {"new": EvaluationSet()}


@pytest.mark.parametrize("key", SET_DECLARATIONS)
def test_every_key_of_a_set_is_checked_by_its_range(key):
    strange = object()
    allowed = SET_DECLARATIONS[key].allowed
    message = error_of(settings_of(evaluation_sets={"new": {key: strange}}))
    assert f"`evaluation_sets['new']['{key}']` must be {allowed.allowed}, got" in message
    assert allowed.contains(SET_DECLARATIONS[key].default)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({}, "`evaluation_sets` is empty: nothing would be evaluated"),
        ({"old": {}}, "`evaluation_sets['old']` is no held-out set. Held-out sets: new."),
        ({"train": {"benchmark": "aime2024"}}, "has the name 'train'. A name is a non-empty text"),
        ({"a/b": {"benchmark": "aime2024"}}, "has the name 'a/b'"),
        ({"": {}}, "has the name ''"),
        ({"new": 32}, "`evaluation_sets['new']` must be a dict of settings of a set, got 32"),
        ({"new": {"num_sample": 2}}, "unknown key 'num_sample'. Did you mean 'num_samples'?"),
        ({"new": {"num_samples": 4096}}, "must be a whole number in [0, 2048]"),
        ({"new": {"num_samples": 0, "greedy": False}}, "`evaluation_sets['new']` asks nothing"),
        ({"new": {"temperature": 0.0}}, "num_samples=0"),
        ({"new": {"benchmark": "aime2024"}}, "has a 'benchmark' and the name of a held-out set"),
        ({"x": {"benchmark": "aime"}}, "Unknown benchmark 'aime'. Known: aime2024"),
        ({"new": {"max_response_tokens": 49}}, "env_config['max_response_tokens'] is 48"),
        ({"new": {"env_config": {"filters": []}}}, "['env_config']` has no effect: it is for a"),
        (
            {"x": {"benchmark": "aime2024", "env_config": {"tokenizer": "t"}}},
            "has 'tokenizer', which must be the run's",
        ),
        *(
            ({"x": {"benchmark": "aime2024", "env_config": own}}, message)
            for own, message in (
                ({"max_response_tokens": "64"}, "`evaluation_sets['x']`: env_config['max_response"),
                ({"max_response": 64}, "`evaluation_sets['x']`: Unknown env_config key 'max_resp"),
                ({"data": "toy_arithmetic"}, "has 'data', which 'benchmark' names. Leave it out"),
                ({"held_out_data": HELD_OUT}, "has 'held_out_data', but nothing of a set is held"),
            )
        ),
    ],
)
def test_a_wrong_set_is_an_error(sets, message):
    assert message in error_of(settings_of(evaluation_sets=sets))


def test_a_benchmark_may_have_a_longer_budget_by_its_own_settings():
    asked = {"benchmark": "aime2024", "max_response_tokens": 60}
    own = {"max_response_tokens": 64}
    settings_of(evaluation_sets={"x": {**asked, "env_config": own}}).validate()
    assert "max_response_tokens 60, but" in error_of(settings_of(evaluation_sets={"x": asked}))


def test_no_held_out_set_is_said_where_a_set_is_named_without_one():
    settings = config().evaluation(evaluation_sets={"aime": {"num_samples": 32}})
    message = error_of(settings)
    assert "No problem is held out. For other problems give it a 'benchmark'" in message


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        ({"old": 3}, "`demonstration_probes` names 'old'. Sets of problems: train, new."),
        ({"train": 0}, "`demonstration_probes` must be a dict of 'train' or names of held-out"),
        ({"train": 2.0}, "to whole numbers of at least 1, got"),
    ],
)
def test_wrong_probes_are_an_error(probes, message):
    assert message in error_of(settings_of(demonstration_probes=probes))


def test_probes_alone_are_something_to_evaluate():
    config().evaluation(evaluation_interval=1, demonstration_probes={"train": 2}).validate()


def test_evaluation_in_parallel_needs_env_runners_of_its_own():
    message = error_of(settings_of(evaluation_parallel_to_training=True))
    assert "`evaluation_num_env_runners` is 0: set it to 1 or more" in message
    settings = settings_of(evaluation_parallel_to_training=True, evaluation_num_env_runners=1)
    settings.validate()
    settings.get_evaluation_config_object().validate()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"explore": False}, "`evaluation_config['explore']` (False) has no effect. It may change"),
        ({"env_config": {}}, "benchmarks are set in `evaluation_sets`"),
        ({"lr": 1.0}, "`evaluation_config['lr']` (1.0) has no effect"),
        ({"temperature": 0.0}, "`evaluation_config['temperature']` must be a finite number above"),
        ({"engine_config": {}}, "the training env runners evaluate"),
        (config(), "`evaluation_config` must be a dict of settings, got a PrefixRFTConfig"),
    ],
)
def test_overrides_without_effect_are_an_error(overrides, message):
    settings = settings_of()
    settings.evaluation_config = overrides
    assert message in error_of(settings)


@pytest.mark.parametrize("name", [*SAMPLING_OVERRIDES, *ENV_RUNNER_OVERRIDES])
def test_overrides_with_an_effect_reach_the_evaluation_env_runners(name):
    plain = settings_of(evaluation_num_env_runners=1)
    value = getattr(plain, name)
    value = {} if isinstance(value, dict) else True if isinstance(value, bool) else 1
    settings = settings_of(evaluation_num_env_runners=1, evaluation_config={name: value})
    settings.validate()
    assert getattr(settings.get_evaluation_config_object(), name) == value


def test_the_page_has_every_key_of_a_set_with_its_default():
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| ", page, flags=re.MULTILINE)
    assert rows == [(name, repr(item.default)) for name, item in SET_DECLARATIONS.items()]


def test_a_function_of_the_users_evaluates_no_sets():
    for own in ({"evaluation_sets": {"new": {}}}, {"demonstration_probes": {"train": 1}}):
        settings = settings_of(custom_evaluation_function=None, **own)
        assert "has no effect: `custom_evaluation_function` (None) evaluates" in error_of(settings)
