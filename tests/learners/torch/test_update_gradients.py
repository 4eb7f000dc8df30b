"""The gradient of an update against a slow float64 loop, and what it must not depend on."""

import numpy as np
import pytest
import torch

from prefix_rft_rllib import metrics
from prefix_rft_rllib.core.token_values import TrajectoryAdvantage
from prefix_rft_rllib.core.token_weights import PreparedWeights
from prefix_rft_rllib.learners.connectors import add_tokens_from_episodes_to_batch as add_tokens
from tests.learners.torch import slow_update
from tests.learners.torch.learners import (
    assert_same,
    build_learner,
    make_rows,
    one_gradient,
    record_steps,
    two_groups,
    update,
)

TEMPERATURE = 0.8


@pytest.fixture
def config(tiny_config):
    tiny_config.env_runners(temperature=TEMPERATURE)
    return tiny_config.training(grad_clip=None)


def check_against_the_slow_loop(config):
    assert_same(
        one_gradient(config, two_groups()),
        slow_update.prefix_rft_gradient(config, two_groups()),
        tolerance=1e-5,
    )


def test_the_gradient_equals_that_of_a_slow_float64_loop(config):
    check_against_the_slow_loop(config)


def test_negative_control_a_mask_shifted_by_one_is_rejected(config, monkeypatch):
    right = add_tokens._region_codes

    def shifted(num_prompt, num_response, data):
        return np.roll(right(num_prompt, num_response, data), -1)

    monkeypatch.setattr(add_tokens, "_region_codes", shifted)
    with pytest.raises(AssertionError):
        check_against_the_slow_loop(config)


def test_negative_control_a_flipped_advantage_is_rejected(config, monkeypatch):
    monkeypatch.setattr(TrajectoryAdvantage, "base", lambda self, columns, _: -columns.advantage)
    with pytest.raises(AssertionError):
        check_against_the_slow_loop(config)


def test_after_a_step_the_gradient_has_ratios_and_clips_of_the_old_policy(config):
    # Minibatch 0 moves the policy by a large step; minibatch 1 then meets ratios far from 1.
    config.training(lr=0.02, num_problems_per_iteration=2, num_problems_per_minibatch=1)
    rows = two_groups([0, 0, 1, 1])
    learner = build_learner(config)
    steps = record_steps(learner)
    results = update(learner, rows)
    first, second = steps
    assert_same(first.gradients, slow_update.prefix_rft_gradient(config, rows[:2]), tolerance=1e-5)
    assert_same(
        second.gradients,
        slow_update.prefix_rft_gradient(config, rows[2:], second.weights),
        tolerance=1e-4,
    )
    assert 0 < results[metrics.CLIP_FRACTION_RESPONSE] < 1


def test_the_ratio_of_the_first_minibatch_is_exactly_1(config):
    results = update(build_learner(config), two_groups())
    assert results[metrics.RATIO_PREFIX] == 1.0
    assert results[metrics.RATIO_RESPONSE] == 1.0


def test_sft_is_the_mean_over_all_demonstration_tokens(config):
    config.training(method="sft")
    rows = make_rows(["xxddddddd", "xxxdd", "xd"], [0.0] * 3)
    model = slow_update.load_float64(config.model_path)
    logps = [logp for row in rows for logp in slow_update.token_logps(model, row, TEMPERATURE)]
    expected = slow_update.gradients_of(-sum(logps) / 10, model)
    for budget in (9, 10_000):
        config.training(max_tokens_per_microbatch=budget)
        assert_same(one_gradient(config, rows), expected, tolerance=1e-5)


@pytest.mark.parametrize("budget", [1, 24, 36])
def test_the_gradient_does_not_depend_on_micro_batches(config, budget):
    # Rows of 12, 11, 11 and 6 tokens: one, two or three rows of the longest width.
    rows = two_groups()
    whole = one_gradient(config, rows)
    assert_same(
        one_gradient(config.training(max_tokens_per_microbatch=budget), rows),
        whole,
        tolerance=1e-6,
    )


def test_the_gradient_does_not_depend_on_the_order_of_rows(config):
    rows = two_groups()
    permuted = [rows[i] for i in (2, 0, 3, 1)]
    assert_same(one_gradient(config, permuted), one_gradient(config, rows), tolerance=1e-6)


def with_group_without_signal():
    """Two groups; all rewards of the second are equal, but its prefix tokens are ranked too."""
    return make_rows(
        ["xxxpppprrrrr", "xxxrrrrrrrr", "xxpppppprrr", "xxrrrr"], [0.5, -0.5, 0.0, 0.0]
    )


def test_rows_without_weight_may_be_skipped(config, monkeypatch):
    rows = with_group_without_signal()
    learner = build_learner(config)
    steps = record_steps(learner)
    results = update(learner, rows)
    assert results[metrics.NUM_TRAINED_ROWS] == 2
    assert results[metrics.NUM_SKIPPED_ROWS] == 2
    skipped = steps[0].gradients
    assert_same(skipped, slow_update.prefix_rft_gradient(config, rows), tolerance=1e-5)
    monkeypatch.setattr(
        PreparedWeights, "active_rows", lambda self: torch.ones_like(self.is_active)
    )
    assert_same(one_gradient(config, rows), skipped, tolerance=1e-6)


def test_prefixes_of_groups_without_signal_are_ranked_too(config):
    with_group, without = with_group_without_signal(), with_group_without_signal()[:2]
    # Of 10 prefix tokens 2 are kept, wherever they are; of the first group's 4 alone: 1.
    assert update(build_learner(config), with_group)[metrics.NUM_KEPT_PREFIX_TOKENS] == 2
    assert update(build_learner(config), without)[metrics.NUM_KEPT_PREFIX_TOKENS] == 1


def test_the_entropy_bonus_adds_the_gradient_of_the_plain_formula(config):
    rows = with_group_without_signal()
    policy = one_gradient(config, rows)
    model = slow_update.load_float64(config.model_path)
    mean = slow_update.sampled_token_mean(
        rows, lambda row: slow_update.entropies(model, row, TEMPERATURE)
    )
    bonus = slow_update.gradients_of(-0.1 * mean, model)
    expected = {name: policy[name] + bonus[name] for name in policy}
    # Rows without advantage have entropy too: none is skipped.
    for budget in (12, 10_000):
        config.training(entropy_coeff=0.1, max_tokens_per_microbatch=budget)
        assert_same(one_gradient(config, rows), expected, tolerance=1e-5)


def test_the_kl_term_adds_the_gradient_of_the_plain_formula(config):
    config.training(lr=0.02)
    rows = with_group_without_signal()
    learner = build_learner(config.copy().training(kl_coeff=0.3))
    steps = record_steps(learner)
    reference = {
        n: p.clone() for n, p in learner.module["default_policy"].reference.lm.named_parameters()
    }
    first = update(learner, rows)
    assert first[metrics.KL_TO_REFERENCE] == pytest.approx(0.0, abs=1e-7)
    # At the initial model k3 is at its minimum; after the step it is not.
    assert_same(steps[0].gradients, slow_update.prefix_rft_gradient(config, rows), tolerance=1e-5)
    second = update(learner, rows)

    model = slow_update.load_float64(config.model_path, steps[1].weights)
    initial = slow_update.load_float64(config.model_path)
    old = slow_update.load_float64(config.model_path, steps[1].weights)

    def k3(row):
        logps = slow_update.token_logps(model, row, TEMPERATURE)
        with torch.no_grad():
            refs = slow_update.token_logps(initial, row, TEMPERATURE)
        pairs = zip(logps, refs, strict=True)
        return [(ref - logp).exp() - 1 - (ref - logp) for logp, ref in pairs]

    mean = slow_update.sampled_token_mean(rows, k3)
    loss = slow_update.prefix_rft_loss(
        model,
        old,
        rows,
        max_response_tokens=config.max_response_tokens,
        temperature=TEMPERATURE,
    )
    assert second[metrics.KL_TO_REFERENCE] == pytest.approx(mean.item(), rel=1e-4)
    expected = slow_update.gradients_of(loss + 0.3 * mean, model)
    assert_same(steps[1].gradients, expected, tolerance=1e-4)
    # The reference is frozen, and no part of what is saved.
    module = learner.module["default_policy"]
    for name, parameter in module.reference.lm.named_parameters():
        assert not parameter.requires_grad
        assert torch.equal(parameter, reference[name])
    assert set(module.get_state()) == set(module.lm.state_dict())


def test_the_kl_metric_is_a_mean_over_minibatches(config):
    config.training(kl_coeff=0.3, lr=0.02)
    rows = two_groups()
    learner = build_learner(config)
    update(learner, rows)
    once = update(learner, rows)[metrics.KL_TO_REFERENCE]
    learner = build_learner(config)
    update(learner, rows)
    # No step in between: two minibatches with the same weights and rows in two epochs.
    learner.config = learner.config.copy(copy_frozen=False).training(lr=0.0)
    twice = update(learner, rows, num_epochs=2)[metrics.KL_TO_REFERENCE]
    assert twice == pytest.approx(once, rel=1e-5)
