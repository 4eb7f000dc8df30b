"""One optimizer per objective: own state, own rate, own clip, and what becomes of them."""

import logging

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from prefix_rft_rllib import metrics
from prefix_rft_rllib.methods import METHODS, build
from tests.learners.torch.learners import (
    assert_same,
    build_learner,
    make_rows,
    record_steps,
    two_groups,
    update,
    weights_of,
)


def failed(minibatch=0):
    """Demonstrations of problems that no rollout solved."""
    return make_rows(["xxddddddd", "xd", "xxdd"], [0.0] * 3, [minibatch] * 3)


def demonstrations():
    """Two minibatches of demonstrations."""
    return make_rows(["xxddddd", "xdd", "xxd", "xddd"], [0.0] * 4, [0, 0, 1, 1])


def optimizer_of(learner, objective):
    return learner.get_optimizer(DEFAULT_MODULE_ID, objective)


def state_of(learner, objective):
    """A copy of an optimizer's state: buffers by number of parameter and name."""
    state = optimizer_of(learner, objective).state_dict()["state"]
    return {
        (number, name): value.clone()
        for number, buffers in state.items()
        for name, value in buffers.items()
    }


def is_same(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[k], other[k]) for k in state)


@pytest.fixture
def relift(tiny_config):
    return tiny_config.training(method="relift", method_config={"imitation_lr": 2e-3}, lr=5e-3)


def test_a_step_of_one_objective_leaves_the_others_optimizer_as_it_is(relift):
    learner = build_learner(relift)
    update(learner, two_groups(), iteration=0)
    main = state_of(learner, "default_optimizer")
    assert main
    assert state_of(learner, "imitation") == {}

    update(learner, failed(), iteration=0, objective="imitation")
    imitation = state_of(learner, "imitation")
    assert imitation
    assert is_same(state_of(learner, "default_optimizer"), main)

    update(learner, two_groups(), iteration=1)
    assert not is_same(state_of(learner, "default_optimizer"), main)
    assert is_same(state_of(learner, "imitation"), imitation)


def test_each_objectives_first_step_is_a_first_adamw_step_by_hand(relift):
    # lr * g / (|g| + eps), whatever the other optimizer did before; with the objective's own rate.
    learner = build_learner(relift.training(grad_clip=None))
    update(learner, two_groups(), iteration=0)
    update(learner, two_groups(), iteration=1)
    steps = record_steps(learner)
    update(learner, failed(), iteration=1, objective="imitation")
    (step,) = steps
    for name, weight in weights_of(learner).items():
        gradient = step.gradients[name]
        expected = step.weights[name] - 2e-3 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)


def test_the_main_objective_goes_on_as_if_there_had_been_no_separate_step(relift):
    # AdamW's second step: the moments of its own first step and the new gradient.
    learner = build_learner(relift.training(grad_clip=None))
    steps = record_steps(learner)
    update(learner, two_groups(), iteration=0)
    update(learner, failed(), iteration=0, objective="imitation")
    update(learner, two_groups(), iteration=1)
    first, _, last = steps
    for name, weight in weights_of(learner).items():
        g1, g2 = first.gradients[name].double(), last.gradients[name].double()
        mean = (0.9 * 0.1 * g1 + 0.1 * g2) / (1 - 0.9**2)
        square = (0.999 * 0.001 * g1**2 + 0.001 * g2**2) / (1 - 0.999**2)
        expected = last.weights[name].double() - 5e-3 * mean / (square.sqrt() + 1e-8)
        torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-6)


def rates_of(learner):
    return [record["lr"] for record in learner.take_report()[0]]


def test_a_stage_has_its_own_rate_with_its_own_warm_up(tiny_config):
    # Two minibatches an iteration; SFT's warm-up is half of its 4 iterations: 4 steps.
    tiny_config.training(
        method="sft_rft",
        method_config={"num_sft_iterations": 4, "sft_lr": 0.01, "sft_warmup_fraction": 0.5},
        num_problems_per_iteration=2,
        num_problems_per_minibatch=1,
        lr=0.004,
        lr_warmup_steps=3,
    )
    learner = build_learner(tiny_config)
    rates = []
    for iteration in range(4):
        update(learner, demonstrations(), iteration=iteration, objective="stage_1")
        rates += rates_of(learner)
        (name,) = {record["objective"] for record in learner.take_report()[0]}
        assert name == "stage_1"
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, *[0.01] * 5])
    # Then the config's, whose warm-up counts the stage's steps, not those of the run.
    rates = []
    for iteration in (4, 5):
        update(
            learner,
            two_groups([0, 0, 1, 1]),
            iteration=iteration,
            schedule_iteration=iteration - 4,
            objective="stage_2",
        )
        rates += rates_of(learner)
    assert rates == pytest.approx([0.004 / 3, 0.008 / 3, 0.004, 0.004])


def test_warm_up_counts_the_steps_of_all_epochs(tiny_config):
    # Two minibatches, two epochs: 4 steps an iteration, so 4 steps of warm-up for one iteration.
    tiny_config.training(
        method="sft_rft",
        method_config={"num_sft_iterations": 2, "sft_lr": 0.01, "sft_warmup_fraction": 0.5},
        num_epochs=2,
    )
    learner = build_learner(tiny_config)
    update(learner, demonstrations(), num_epochs=2)
    assert rates_of(learner) == pytest.approx([0.0025, 0.005, 0.0075, 0.01])


def test_the_separate_step_has_a_constant_rate_whatever_the_configs_schedule(relift):
    relift.training(lr_warmup_steps=10, lr_schedule="cosine", lr_schedule_steps=20)
    learner = build_learner(relift)
    for iteration in (0, 5, 50):
        update(learner, failed(), iteration=iteration, objective="imitation")
        assert rates_of(learner) == [2e-3]


def test_a_later_stage_drops_the_optimizer_state_of_the_earlier_ones(tiny_config):
    tiny_config.training(method="sft_rft", method_config={"num_sft_iterations": 2})
    learner = build_learner(tiny_config)
    update(learner, demonstrations(), objective="stage_1")
    assert state_of(learner, "stage_1")
    assert state_of(learner, "stage_2") == {}
    before = weights_of(learner)
    steps = record_steps(learner)
    update(learner, two_groups(), iteration=2, schedule_iteration=0, objective="stage_2")
    # It goes on from the weights, with a fresh optimizer: a first AdamW step.
    (step,) = steps
    assert_same(step.weights, before, tolerance=0)
    assert state_of(learner, "stage_1") == {}
    assert {
        float(v) for (_, name), v in state_of(learner, "stage_2").items() if name == "step"
    } == {1.0}


def test_the_separate_step_of_a_stage_drops_nothing_of_that_stage(relift):
    learner = build_learner(relift)
    update(learner, two_groups())
    update(learner, failed(), objective="imitation")
    update(learner, failed(), objective="imitation")
    assert state_of(learner, "default_optimizer")
    assert state_of(learner, "imitation")


def test_only_the_trained_objective_is_in_the_metrics(relift):
    learner = build_learner(relift)
    results = update(learner, failed(), objective="imitation")
    assert results[metrics.NUM_OPTIMIZER_STEPS] == 1
    assert results[metrics.LEARNING_RATE] == 2e-3
    assert metrics.RATIO_RESPONSE not in results
    # By default it is the first one again.
    results = update(learner, two_groups())
    assert results[metrics.LEARNING_RATE] == 5e-3
    assert [r["objective"] for r in learner.take_report()[0]] == ["default_optimizer"]


@pytest.mark.parametrize("name", ["relift", "luffy"])
def test_an_objective_without_clip_has_none(tiny_config, name):
    tiny_config.training(lr=0.02, method=name, num_problems_per_iteration=2)
    rows = two_groups([0, 0, 1, 1])
    without = update(build_learner(tiny_config), rows)
    assert without[metrics.CLIP_FRACTION_RESPONSE] == 0.0
    with_clip = update(build_learner(tiny_config.training(method_config={"clip": True})), rows)
    assert with_clip[metrics.CLIP_FRACTION_RESPONSE] > 0.0


def run(learner, first, last):
    """Some iterations of ReLIFT, each with its separate step."""
    for iteration in range(first, last):
        update(learner, two_groups([0, 0, 1, 1]), iteration=iteration)
        update(learner, failed(), iteration=iteration, objective="imitation")


def test_a_restored_learner_with_several_objectives_goes_on_bit_for_bit(relift):
    relift.training(weight_decay=0.1)
    learner = build_learner(relift)
    run(learner, 0, 2)
    state = learner.get_state()
    run(learner, 2, 4)
    restored = build_learner(relift)
    restored.set_state(state)
    for name in ("default_optimizer", "imitation"):
        assert state_of(restored, name)
    run(restored, 2, 4)
    assert_same(weights_of(restored), weights_of(learner), tolerance=0)
    for name in ("default_optimizer", "imitation"):
        assert is_same(state_of(restored, name), state_of(learner, name))


def test_a_learner_restored_between_stages_goes_on_bit_for_bit(tiny_config):
    tiny_config.training(method="sft_rft", method_config={"num_sft_iterations": 2}, lr=1e-2)
    learner = build_learner(tiny_config)
    update(learner, demonstrations(), objective="stage_1")
    state = learner.get_state()

    def go_on(a_learner):
        update(a_learner, demonstrations(), iteration=1, objective="stage_1")
        update(a_learner, two_groups(), iteration=2, schedule_iteration=0, objective="stage_2")
        return weights_of(a_learner)

    expected = go_on(learner)
    restored = build_learner(tiny_config)
    restored.set_state(state)
    assert_same(go_on(restored), expected, tolerance=0)
    # A checkpoint of the second stage restores into its optimizer, and not into the first one.
    later = build_learner(tiny_config)
    later.set_state(learner.get_state())
    assert is_same(state_of(later, "stage_2"), state_of(learner, "stage_2"))
    assert state_of(later, "stage_1") == {}


def restored_as(config, method, state):
    learner = build_learner(
        config.copy(copy_frozen=False).training(method=method, method_config={})
    )
    learner.set_state(state)
    return learner


@pytest.fixture
def warnings(caplog):
    """The warnings of the package's learner so far."""
    caplog.set_level(logging.WARNING, logger="prefix_rft_rllib")
    logging.getLogger("prefix_rft_rllib").addHandler(caplog.handler)
    yield lambda: [r.getMessage() for r in caplog.records if "belongs to another method" in r.msg]
    logging.getLogger("prefix_rft_rllib").removeHandler(caplog.handler)


def test_another_methods_checkpoint_gives_the_common_optimizer_and_a_warning(relift, warnings):
    learner = build_learner(relift)
    run(learner, 0, 1)
    other = restored_as(relift, "prefix_rft", learner.get_state())
    assert_same(weights_of(other), weights_of(learner), tolerance=0)
    main = state_of(learner, "default_optimizer")
    assert is_same(state_of(other, "default_optimizer"), main)
    (message,) = set(warnings())
    assert "'default_policy_imitation'" in message
    assert "'prefix_rft'" in message
    # And it trains on, the common optimizer's third step.
    update(other, two_groups(), iteration=1)
    steps = {float(v) for (_, n), v in state_of(other, "default_optimizer").items() if n == "step"}
    assert steps == {3.0}


def test_an_objective_that_the_checkpoint_lacks_starts_fresh(tiny_config, warnings):
    learner = build_learner(tiny_config)
    update(learner, two_groups())
    other = restored_as(tiny_config, "relift", learner.get_state())
    main = state_of(learner, "default_optimizer")
    assert is_same(state_of(other, "default_optimizer"), main)
    assert state_of(other, "imitation") == {}
    assert not warnings()
    update(other, failed(), objective="imitation")
    assert state_of(other, "imitation")


def test_stages_have_no_optimizer_in_common_with_other_methods(tiny_config, warnings):
    tiny_config.training(method="sft_rft", method_config={"num_sft_iterations": 2})
    learner = build_learner(tiny_config)
    update(learner, demonstrations())
    other = restored_as(tiny_config, "rft", learner.get_state())
    assert_same(weights_of(other), weights_of(learner), tolerance=0)
    assert state_of(other, "default_optimizer") == {}
    assert len(set(warnings())) == 2


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_trains_each_of_its_objectives(tiny_config, name):
    learner = build_learner(tiny_config.training(method=name))
    rows = make_rows(
        ["xxpprrr", "xxrrr", "xxDDD", "xdd"],
        [0.5, -0.25, -0.25, 0.0],
    )
    for objective in build(name).objectives():
        before = weights_of(learner)
        results = update(learner, rows, iteration=3, objective=objective.name)
        assert results[metrics.NUM_OPTIMIZER_STEPS] == 1
        assert results[metrics.GRAD_NORM] > 0
        changed = weights_of(learner)
        assert any(not torch.equal(changed[key], before[key]) for key in before)
        assert state_of(learner, objective.name)
