"""Optimizer steps: when one is taken, its learning rate, its clipping, its order."""

import copy
import math

import numpy as np
import pytest
import torch

from prefix_rft_rllib import metrics
from prefix_rft_rllib.core.lr_schedules import lr_at
from prefix_rft_rllib.learners.torch import prefix_rft_torch_learner
from tests.learners.torch.learners import (
    assert_same,
    build_learner,
    make_rows,
    record_steps,
    two_groups,
    update,
    weights_of,
)


def group_without_signal(minibatch=0):
    """A group without signal: nothing moves the policy."""
    return make_rows(["xxxpppprrrrr", "xxxrrrr"], [0.0, 0.0], [minibatch] * 2)


def in_order(*groups):
    """The groups' rows, with new row indices."""
    rows = [row for group in groups for row in group]
    for index, row in enumerate(rows):
        row.custom_data["row_index"] = index
    return rows


def minibatch_order(learner):
    minibatches, _ = learner.take_report()
    return [record["minibatch"] for record in minibatches]


def test_the_first_step_is_adamw_by_hand(tiny_config):
    # The first AdamW step moves a weight by lr * g / (|g| + eps), after decay by lr * wd * weight.
    tiny_config.training(lr=0.01, weight_decay=0.1, grad_clip=None)
    learner = build_learner(tiny_config)
    steps = record_steps(learner)
    update(learner, two_groups())
    (step,) = steps
    for name, weight in weights_of(learner).items():
        before, gradient = step.weights[name], step.gradients[name]
        expected = before * (1 - 0.01 * 0.1) - 0.01 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)


def test_a_minibatch_without_signal_takes_a_step_with_zero_gradient(tiny_config):
    learner = build_learner(tiny_config.training(lr=0.01, weight_decay=0.1))
    steps = record_steps(learner)
    results = update(learner, group_without_signal())
    (step,) = steps
    assert all(not gradient.any() for gradient in step.gradients.values())
    assert results[metrics.LOSS] == 0.0
    assert results[metrics.GRAD_NORM] == 0.0
    assert results[metrics.NUM_OPTIMIZER_STEPS] == 1
    assert results[metrics.NUM_TRAINED_ROWS] == 0
    assert metrics.RATIO_RESPONSE not in results
    # Only the weight decay acts.
    for name, weight in weights_of(learner).items():
        torch.testing.assert_close(weight, step.weights[name] * (1 - 0.001), rtol=1e-6, atol=0)


def test_gradients_are_clipped_to_the_global_norm(tiny_config):
    learner = build_learner(tiny_config.training(grad_clip=None))
    steps = record_steps(learner)
    update(learner, two_groups())
    total = math.sqrt(sum(float((g.double() ** 2).sum()) for g in steps[0].gradients.values()))
    assert steps[0].norm == pytest.approx(total, rel=1e-5)

    clip = total / 3
    learner = build_learner(tiny_config.training(grad_clip=clip))
    applied = {}
    apply = learner.apply_gradients

    def recorded(gradients):
        applied.update({parameter: gradient.clone() for parameter, gradient in gradients.items()})
        apply(gradients)

    learner.apply_gradients = recorded
    results = update(learner, two_groups())
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in applied.values()))
    assert norm == pytest.approx(clip, rel=1e-4)
    # What is reported is the norm before clipping.
    assert results[metrics.GRAD_NORM] == pytest.approx(total, rel=1e-5)
    assert learner.take_report()[0][0]["grad_norm"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_with_a_gradient_that_is_not_finite_is_left_out(tiny_config, value, monkeypatch):
    tiny_config.training(lr=0.01, weight_decay=0.1)
    learner = build_learner(tiny_config)
    right_loss = prefix_rft_torch_learner.policy_loss

    def broken_loss(weights, logp, *args, **kwargs):
        terms = right_loss(weights, logp, *args, **kwargs)
        return terms._replace(loss=terms.loss * value)

    before = weights_of(learner)
    monkeypatch.setattr(prefix_rft_torch_learner, "policy_loss", broken_loss)
    results = update(learner, two_groups())
    assert results[metrics.NUM_NONFINITE_STEPS] == 1
    assert results[metrics.NUM_OPTIMIZER_STEPS] == 0
    assert not math.isfinite(learner.take_report()[0][0]["grad_norm"])
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(learner).items())

    # The next update is that of a learner to which nothing happened.
    monkeypatch.undo()
    results = update(learner, two_groups())
    assert results[metrics.NUM_NONFINITE_STEPS] == 0
    other = build_learner(tiny_config)
    update(other, two_groups())
    assert_same(weights_of(learner), weights_of(other), tolerance=0)


def test_a_step_with_a_loss_that_is_not_finite_is_left_out(tiny_config, monkeypatch):
    learner = build_learner(tiny_config)
    right_loss = prefix_rft_torch_learner.policy_loss

    def infinite_loss(*args, **kwargs):
        terms = right_loss(*args, **kwargs)
        return terms._replace(loss=terms.loss + math.inf)  # its gradient is finite

    before = weights_of(learner)
    monkeypatch.setattr(prefix_rft_torch_learner, "policy_loss", infinite_loss)
    results = update(learner, two_groups())
    assert results[metrics.NUM_NONFINITE_STEPS] == 1
    assert math.isfinite(learner.take_report()[0][0]["grad_norm"])
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(learner).items())


def test_the_learning_rate_is_a_function_of_the_optimizer_step(tiny_config):
    tiny_config.training(lr=0.01, lr_warmup_steps=3, lr_schedule="cosine", lr_schedule_steps=12)
    schedule = {"lr": 0.01, "schedule": "cosine", "num_warmup_steps": 3, "num_steps": 12}
    rows = two_groups([0, 0, 1, 1])
    learner = build_learner(tiny_config)
    rates = []
    for iteration in range(3):
        results = update(learner, rows, iteration=iteration)
        records = learner.take_report()[0]
        rates += [record["lr"] for record in records]
        assert [record["step"] for record in records] == [2 * iteration, 2 * iteration + 1]
        assert results[metrics.LEARNING_RATE] == rates[-1]
    assert rates == [lr_at(step, **schedule) for step in range(6)]
    # A learner that begins later, after a restore, has the same rates: nothing is counted.
    restored = build_learner(tiny_config)
    update(restored, rows, iteration=2)
    assert [record["lr"] for record in restored.take_report()[0]] == rates[4:]


def test_the_rate_is_the_one_the_step_is_taken_with(tiny_config):
    tiny_config.training(lr=0.01, lr_warmup_steps=4, grad_clip=None)
    learner = build_learner(tiny_config)
    steps = record_steps(learner)
    update(learner, two_groups())
    name = "model.embed_tokens.weight"
    moved = (weights_of(learner)[name] - steps[0].weights[name]).abs().max()
    # An AdamW step moves the weights by at most the rate: 0.01 / 4 in the first of 4 steps.
    assert float(moved) == pytest.approx(0.0025, rel=1e-3)


def test_every_epoch_visits_every_minibatch_in_a_seeded_order(tiny_config):
    tiny_config.training(lr=0.0, num_problems_per_iteration=5)
    rows = in_order(*[make_rows(["xxpprr", "xrrr"], [0.5, -0.5], [n] * 2) for n in range(5)])
    learner = build_learner(tiny_config)
    orders = []
    for iteration in (0, 1):
        update(learner, rows, iteration=iteration, num_epochs=3)
        order = minibatch_order(learner)
        orders.append([order[start : start + 5] for start in (0, 5, 10)])
    for epochs in orders:
        assert epochs[0] == [0, 1, 2, 3, 4]
        assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert orders[0][1] != orders[0][2]
    assert orders[0][1:] != orders[1][1:]
    again = build_learner(tiny_config)
    update(again, rows, iteration=1, num_epochs=3)
    assert minibatch_order(again) == [n for epoch in orders[1] for n in epoch]


def test_the_second_epoch_trains_on_the_ratios_to_the_first_policy(tiny_config):
    tiny_config.training(lr=0.01)
    learner = build_learner(tiny_config)
    steps = record_steps(learner)
    results = update(learner, two_groups(), num_epochs=2)
    assert results[metrics.NUM_OPTIMIZER_STEPS] == 2
    assert [record["step"] for record in learner.take_report()[0]] == [0, 1]
    # The old-policy columns were not taken again: ratios differ from 1 in the second epoch.
    assert results[metrics.RATIO_RESPONSE] != 1.0
    name = "lm_head.weight"
    assert not torch.equal(steps[0].gradients[name], steps[1].gradients[name])


def test_a_restored_learner_goes_on_bit_for_bit(tiny_config):
    tiny_config.training(lr=0.01, weight_decay=0.1)
    learner = build_learner(tiny_config)
    update(learner, two_groups(), iteration=0)
    state = learner.get_state()
    update(learner, two_groups(), iteration=1)
    restored = build_learner(tiny_config)
    restored.set_state(state)
    update(restored, two_groups(), iteration=1)
    assert_same(weights_of(restored), weights_of(learner), tolerance=0)


def test_a_state_that_a_learner_took_stays_as_it_was(tiny_config):
    # In the object store it is that of all learners of a node.
    first, other = build_learner(tiny_config), build_learner(tiny_config)
    update(first, two_groups())
    state = first.get_state()
    before = copy.deepcopy(state["optimizer"])
    other.set_state(state)
    update(other, two_groups())
    for name, optimizer in before.items():
        for index, values in optimizer["state"]["state"].items():
            for key, value in values.items():
                assert np.array_equal(state["optimizer"][name]["state"]["state"][index][key], value)
