"""Whose bounds: the config's, or a method's own; and what rules of rewards need."""

import copy
import dataclasses
import logging
import pickle
from pathlib import Path

import pytest

from prefix_rft_rllib import methods, metrics
from prefix_rft_rllib.core.demonstration_rows import OneRowPerGroup
from prefix_rft_rllib.core.surrogates import CISPO, GSPO, NoClip, PPOClip
from prefix_rft_rllib.core.token_values import Uncertainty, Value
from prefix_rft_rllib.core.token_weights import Rule, TokenMean
from prefix_rft_rllib.methods import METHODS, Method, Stage, build
from tests.learners.torch.learners import build_learner, two_groups, update, weights_of
from tests.small_configs import config, error_of

pytest_plugins = ("tests.algorithm_fixtures",)

OLD_METHODS = Path(__file__).parent / "methods_with_clip_flag.pkl"
"""Methods by name, as checkpoints hold them from when a method had a flag `clip`."""
BOUNDS = [{"clip_param": 0.1}, {"clip_param_high": 0.28}, {"dual_clip": 3.0}]


def with_surrogate(surrogate):
    return {"method": dataclasses.replace(methods.rft(), surrogate=surrogate), "method_config": {}}


def trained(tiny_config, **settings):
    """Weights and clip fraction after two minibatches, the second far from the old policy."""
    settings = {"lr": 0.02, "num_problems_per_iteration": 2} | settings
    learner = build_learner(tiny_config.copy(copy_frozen=False).training(**settings))
    results = update(learner, two_groups([0, 0, 1, 1]))
    return weights_of(learner), results[metrics.CLIP_FRACTION_RESPONSE]


def is_same(run, other):
    return run[1] == other[1] and all((run[0][name] == other[0][name]).all() for name in run[0])


def test_a_clip_without_bounds_has_the_configs(tiny_config):
    bounds = {"clip_param": 0.05, "clip_param_high": 0.07, "dual_clip": 1.1}
    by_config = trained(tiny_config, method="rft", **bounds)
    by_method = trained(tiny_config, **with_surrogate(PPOClip(0.05, 0.07, 1.1)))
    assert is_same(by_config, by_method)
    assert not is_same(by_config, trained(tiny_config, method="rft"))
    # The default is the paper's clip.
    paper = trained(tiny_config, **with_surrogate(PPOClip(0.2)))
    assert is_same(trained(tiny_config, method="rft"), paper)


def test_each_surrogate_trains_in_its_own_way(tiny_config):
    kinds = (PPOClip(0.2), NoClip(), CISPO(0.05), GSPO(0.01, 0.01))
    runs = [trained(tiny_config, **with_surrogate(surrogate)) for surrogate in kinds]
    for number, run in enumerate(runs):
        assert not any(is_same(run, other) for other in runs[:number])
    fractions = [fraction for _, fraction in runs]
    assert fractions[1] == 0.0
    assert min(fractions[0], *fractions[2:]) > 0.0


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_bounds_that_contradict_the_methods_own_are_refused(bounds):
    message = error_of(config(method="psft", method_config={}, **bounds))
    ((name, value),) = bounds.items()
    assert f"`{name}` ({value})" in message
    assert "have no effect: method 'psft' has bounds of its own, PPOClip(low=0.2, hi" in message
    for surrogate in (CISPO(0.3), GSPO(), PPOClip(0.3)):
        assert repr(surrogate) in error_of(config(**with_surrogate(surrogate), **bounds))


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_bounds_are_accepted_where_a_part_of_the_method_has_them(bounds):
    first = Stage(method=methods.psft(), num_iterations=3)
    stages = Method(name="two", stages=(first, Stage(method=methods.rft())))
    config(method=stages, method_config={}, **bounds).validate()
    # And by methods that clip nothing, so that methods can be compared with one config.
    for name in ("rft", "prefix_rft", "sft", "luffy"):
        config(method=name, method_config={}, **bounds).validate()


@pytest.mark.integration
@pytest.mark.usefixtures("cluster")
def test_bounds_of_a_method_without_clip_are_warned_of(make_config, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="prefix_rft_rllib"):
        for bounds in ({}, {"clip_param": 0.1}):
            assert "'luffy' trains without a clip" not in caplog.text
            settings = make_config(method="luffy", method_config={}, **bounds)
            settings.reporting(run_dir=str(tmp_path)).build_algo().stop()
    assert "'luffy' trains without a clip: `clip_param`" in caplog.text


def test_the_config_says_its_bounds():
    assert config(clip_param=0.1, clip_param_high=0.3).ppo_clip == PPOClip(0.1, 0.3)
    assert config().ppo_clip == PPOClip(0.2)


def test_methods_of_older_checkpoints_are_todays():
    # Written when `clip` was a flag and CHORD's factor had another name.
    old = pickle.loads(OLD_METHODS.read_bytes())
    with_clip = old.pop("luffy_clip")
    assert with_clip == build("luffy", {"clip": True})
    assert len(old) == 19
    for name, method in old.items():
        assert method == build(name)
        assert str(method) == str(build(name))
        assert method.objectives() == build(name).objectives()
        assert not hasattr(method, "clip")
    assert (old["luffy"].surrogate, old["rft"].surrogate) == (NoClip(), PPOClip())
    assert old["chord"].rules[1].value.value == Uncertainty()
    # What they become when they are written again.
    assert pickle.loads(pickle.dumps(old)) == {name: build(name) for name in old}


@pytest.mark.parametrize("name", METHODS)
def test_methods_survive_copies_with_their_surrogate(name):
    method = dataclasses.replace(build(name), surrogate=CISPO(0.3))
    for again in (copy.copy(method), copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
        assert (again, again.surrogate) == (method, CISPO(0.3))


def test_a_value_of_rewards_needs_demonstrations_that_are_graded():
    @dataclasses.dataclass(frozen=True)
    class Reward(Value):
        reads = frozenset({"reward"})

        def base(self, columns, iteration):
            return columns.reward

    rule = Rule(region="demonstration", stream="imitation", value=Reward(), scale=TokenMean())
    method = dataclasses.replace(methods.sft(), rules=(rule,))
    message = error_of(config(method=method, method_config={}))
    assert "method 'sft' for demonstrations reads `reward`" in message
    assert "rows of EveryStep(num_rows=1). Use `OneRowPerGroup()`" in message
    member = dataclasses.replace(method, demonstration_rows=OneRowPerGroup(), num_sampled=None)
    config(method=member, method_config={}).validate()
