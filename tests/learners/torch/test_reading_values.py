"""Values that read the old policy's columns train with one epoch and with two."""

import dataclasses

import pytest
import torch

from prefix_rft_rllib import methods, metrics
from prefix_rft_rllib.core.demonstration_rows import EveryStep
from prefix_rft_rllib.core.token_selection import Keep
from prefix_rft_rllib.core.token_values import Constant, EntropyScaled, Value
from prefix_rft_rllib.core.token_weights import Rule, TokenMean
from prefix_rft_rllib.methods import Method
from prefix_rft_rllib.methods.prefix import RESPONSE_RULE
from prefix_rft_rllib.rollouts import row_data
from tests.learners.torch import slow_update
from tests.learners.torch.learners import (
    assert_same,
    build_learner,
    make_rows,
    one_gradient,
    record_steps,
    update,
)
from tests.learners.torch.test_first_minibatch import passes_of

TEMPERATURE = 0.8
T_MAX = 40
PICTURES = ["xxrrr", "xxrrrrrr", "xxddddd", "xddd", "xprrr", "xrr", "xxxdddd", "xxd"]
ADVANTAGES = [0.5, -0.5, 0.0, 0.0, -0.25, 0.25, 0.0, 0.0]
MINIBATCHES = [0, 0, 0, 0, 1, 1, 1, 1]


def imitating(value, keep=None):
    rule = Rule(region="demonstration", stream="imitation", value=value, scale=TokenMean())
    return dataclasses.replace(rule, keep=keep) if keep else rule


def method_of(*rules):
    """Sampled tokens by their advantage, demonstrations by other rules."""
    rules = (RESPONSE_RULE, *rules)
    return Method(name="reading", rules=rules, demonstration_rows=EveryStep(1))


HALF_BY_ENTROPY = EntropyScaled(Constant(0.5))
"""SRFT's factor 0.5 exp(-mean entropy of the row)."""


def valued(value):
    """A value of the demonstrations' tokens beside the advantage of sampled ones."""
    return method_of(imitating(value))


@pytest.fixture
def config(tiny_config):
    return (
        tiny_config.copy(copy_frozen=False)
        .env_runners(temperature=TEMPERATURE)
        .training(
            method=valued(HALF_BY_ENTROPY),
            grad_clip=None,
            lr=1e-2,
            num_problems_per_iteration=2,
            num_problems_per_minibatch=1,
        )
    )


def rows():
    return make_rows(PICTURES, ADVANTAGES, MINIBATCHES)


def slow_gradient(config, weights, minibatch):
    """The gradient in float64 at some weights; entropies and old log-probs of the initial model."""
    model = slow_update.load_float64(config.model_path, weights)
    old = slow_update.load_float64(config.model_path)
    own = [row for row in rows() if row.custom_data[row_data.MINIBATCH] == minibatch]
    sampled, imitated, num_demonstration_tokens = 0.0, 0.0, 0
    for row in own:
        logps = slow_update.token_logps(model, row, TEMPERATURE)
        with torch.no_grad():
            old_logps = slow_update.token_logps(old, row, TEMPERATURE)
            entropies = slow_update.entropies(old, row, TEMPERATURE)
        if row.custom_data[row_data.IS_DEMONSTRATION]:
            factor = 0.5 * torch.exp(-sum(entropies) / len(entropies))
            imitated = imitated + factor * sum(logps)
            num_demonstration_tokens += len(logps)
            continue
        advantage = row.custom_data[row_data.ADVANTAGE]
        num_given = row_data.num_prefix_tokens_of(row)
        for logp, before in zip(logps[num_given:], old_logps[num_given:], strict=True):
            ratio = (logp - before).exp()
            sampled = sampled + torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    objective = sampled / 2 / T_MAX + imitated / num_demonstration_tokens
    return slow_update.gradients_of(-objective, model)


def check_all_steps(config, num_epochs):
    """Every optimizer step of an update against the slow loop; returns the learner's metrics."""
    learner = build_learner(config.training(num_epochs=num_epochs))
    steps = record_steps(learner)
    results = update(learner, rows(), num_epochs=num_epochs)
    minibatches = [record["minibatch"] for record in learner.take_report()[0]]
    assert len(steps) == 2 * num_epochs
    for step, minibatch in zip(steps, minibatches, strict=True):
        expected = slow_gradient(config, step.weights, minibatch)
        assert_same(step.gradients, expected, tolerance=1e-4)
    return results


@pytest.mark.parametrize("budget", [10_000, 9])
@pytest.mark.parametrize("num_epochs", [1, 2])
def test_an_entropy_weighted_value_trains_like_a_slow_float64_loop(config, num_epochs, budget):
    results = check_all_steps(config.training(max_tokens_per_microbatch=budget), num_epochs)
    assert results[metrics.NUM_NONFINITE_STEPS] == 0


@pytest.mark.parametrize("num_epochs", [1, 2])
def test_negative_control_another_power_of_the_entropy_is_rejected(config, num_epochs):
    config.training(method=valued(EntropyScaled(Constant(0.5), power=-0.9)))
    with pytest.raises(AssertionError):
        check_all_steps(config, num_epochs)


def test_rows_that_are_read_have_the_pass_and_no_others_of_the_first_minibatch(config):
    learner = build_learner(config)
    counts = passes_of(learner)
    update(learner, rows())
    # The two rollouts of the first minibatch get their values from the training pass.
    assert sum(counts) == len(PICTURES) - 2
    plain = build_learner(config.training(method=valued(Constant(0.5))))
    counts = passes_of(plain)
    update(plain, rows())
    assert sum(counts) == len(PICTURES) - 4


def test_the_logged_weights_of_a_reading_value_are_its_values(config):
    learner = build_learner(config)
    update(learner, rows())
    old = slow_update.load_float64(config.model_path)
    for number in (2, 7):
        with torch.no_grad():
            entropies = slow_update.entropies(old, rows()[number], TEMPERATURE)
        expected = 0.5 * torch.exp(-sum(entropies) / len(entropies)).item()
        weight = learner.take_report()[1][number]["weight"]
        assert weight == pytest.approx([expected] * len(entropies), rel=1e-4)


@dataclasses.dataclass(frozen=True)
class OldProbability(Value):
    """The old policy's probability of the token."""

    reads = frozenset({"old_logp"})

    def base(self, columns, iteration):
        return columns.old_logp.exp()


@dataclasses.dataclass(frozen=True)
class Solved(Value):
    """1 at rows with a reward, -1 at others."""

    reads = frozenset({"reward"})

    def base(self, columns, iteration):
        return (columns.reward > 0) * 2.0 - 1.0


@dataclasses.dataclass(frozen=True)
class Likely(Keep):
    """The half of the tokens that the old policy thought most likely."""

    reads = frozenset({"old_logp"})
    keep_fraction = 0.5

    def priority(self, columns):
        return columns.old_logp


@dataclasses.dataclass(frozen=True)
class Silent(Value):
    """Reads entropies and does not say so."""

    def base(self, columns, iteration):
        return columns.entropy


def test_a_value_of_old_probabilities_has_the_gradient_of_its_formula(config):
    # No rollout has an advantage: the demonstrations alone move the policy.
    ones = make_rows(PICTURES[:4], [0.0] * 4)
    model = slow_update.load_float64(config.model_path)
    demonstrations = [row for row in ones if row.custom_data[row_data.IS_DEMONSTRATION]]
    logps = [
        logp for row in demonstrations for logp in slow_update.token_logps(model, row, TEMPERATURE)
    ]
    objective = sum(logp.detach().exp() * logp for logp in logps) / len(logps)
    expected = slow_update.gradients_of(-objective, model)
    actual = one_gradient(config.training(method=valued(OldProbability())), ones)
    assert_same(actual, expected, tolerance=1e-4)


def test_a_selection_of_ones_own_and_a_value_of_rewards_train(config):
    for num_epochs in (1, 2):
        rules = (
            dataclasses.replace(RESPONSE_RULE, value=Solved()),
            imitating(Constant(1.0), Likely()),
        )
        config.training(
            method=dataclasses.replace(methods.rft(), rules=rules), num_epochs=num_epochs
        )
        learner = build_learner(config)
        results = update(learner, rows(), num_epochs=num_epochs)
        assert results[metrics.NUM_OPTIMIZER_STEPS] == 2 * num_epochs
        assert results[metrics.GRAD_NORM] > 0
        logged = learner.take_report()[1]
        assert set(logged[0]["weight"]) == {-1.0}
        kept = sum(sum(logged[number]["kept"]) for number in (2, 3))
        assert kept == 4  # of 8 tokens of the first minibatch


@pytest.mark.parametrize("num_epochs", [1, 2])
def test_a_value_that_does_not_say_what_it_reads_is_refused(config, num_epochs):
    config.training(method=valued(Silent()), num_epochs=num_epochs)
    with pytest.raises(ValueError, match=r"Silent\(\) reads `entropy` without saying so"):
        update(build_learner(config), rows(), num_epochs=num_epochs)
