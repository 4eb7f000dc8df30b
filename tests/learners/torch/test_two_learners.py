"""Two learners take the steps of one, whatever each of them holds."""

import gymnasium as gym
import numpy as np
import pytest
import ray
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from prefix_rft_rllib import metrics
from prefix_rft_rllib.prefix_rft_config import PrefixRFTConfig
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.row_data import WholeSequences
from tests.learners.torch.learners import (
    assert_same,
    build_learner,
    make_rows,
    model_of,
    record_steps,
    two_groups,
    update,
    weights_of,
)

pytestmark = pytest.mark.integration

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def group(tiny_model_dir):
    """Two learners; every test sets their weights and settings."""
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    config = (
        PrefixRFTConfig()
        .environment("PrefixRFT/ToyArithmetic-v0", env_config={"max_response_tokens": 40})
        .training(
            model_path=tiny_model_dir,
            method="relift",  # both optimizers that the methods below have
            num_problems_per_iteration=2,
            num_problems_per_minibatch=1,
            group_size=2,
            lr=0.0,
            grad_clip=None,
        )
        .learners(num_learners=2)
    )
    config.validate()
    space = gym.spaces.Discrete(2)
    group = config.build_learner_group(spaces={DEFAULT_MODULE_ID: (space, space)})
    yield group
    group.shutdown()
    ray.shutdown()


def on_each(group, function):
    return [result.get() for result in group.foreach_learner(function)]


def set_up(group, local, **settings):
    """Weights and optimizers of a local learner, its method, and settings of the loss."""
    state = local.get_state()
    settings = {"method": local.config.method, "method_config": {}} | settings

    def take(learner):
        learner._weights_seq_no = 0
        learner.set_state({**state, "weights_seq_no": 0})
        learner.config = learner.config.copy(copy_frozen=False).training(**settings)
        objectives = learner.config.build_method().objectives()
        learner._objectives = {objective.name: objective for objective in objectives}

    on_each(group, take)


def gradients(learner):
    return {name: p.grad.clone() for name, p in model_of(learner).named_parameters()}


def update_both(group, rows, **kwargs):
    """One update by two learners: metrics and last gradients of each."""
    results = group.update(
        training_data=WholeSequences(episodes=rows),
        timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 0},
        **{"num_epochs": 1, "iteration": 0} | kwargs,
    )
    values = [
        {name: float(stat.peek()) for name, stat in result[DEFAULT_MODULE_ID].items()}
        for result in results
    ]
    assert len(values) == 2
    return values, on_each(group, gradients)


def check_two_are_as_one(group, config, rows, *, update_settings=None, **settings):
    """Gradients and metrics of two learners against those of a learner alone."""
    update_settings = update_settings or {}
    settings = {"lr": 0.0, "grad_clip": None, "max_tokens_per_microbatch": 10_000} | settings
    local = build_learner(config.training(**settings))
    set_up(group, local, **settings)
    steps = record_steps(local)
    expected = update(local, rows, **update_settings)
    both_results, both_gradients = update_both(group, rows, **update_settings)
    assert both_gradients[0].keys() == both_gradients[1].keys()
    for name, gradient in both_gradients[0].items():
        assert torch.equal(gradient, both_gradients[1][name])
    assert_same(both_gradients[0], steps[-1].gradients, tolerance=TOLERANCE)
    for name in set(metrics.LEARNER_METRICS) & set(expected):
        assert both_results[0][name] == both_results[1][name]
        assert both_results[0][name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name
    assert not set(metrics.LEARNER_METRICS) & (set(both_results[0]) ^ set(expected))
    return expected


def shards_of(rows):
    shards = WholeSequences(episodes=rows).shard(2)
    return [[row.custom_data[row_data.ROW_INDEX] for row in s.episodes] for s, _ in shards]


def test_two_learners_have_the_gradient_and_the_metrics_of_one(group, tiny_config):
    # Prefixes on both sides: the selection is among the global minibatch.
    assert shards_of(two_groups()) == [[0, 3], [1, 2]]
    results = check_two_are_as_one(group, tiny_config, two_groups())
    assert results[metrics.NUM_KEPT_PREFIX_TOKENS] == 2


def test_negative_control_a_selection_per_learner_is_another_gradient(group, tiny_config):
    def take_alone(learner):
        learner._collectives.all_gather_1d = lambda values: values

    def take_together(learner):
        del learner._collectives.all_gather_1d

    on_each(group, take_alone)
    try:
        with pytest.raises(AssertionError):
            check_two_are_as_one(group, tiny_config, two_groups())
    finally:
        on_each(group, take_together)


def test_learners_may_have_different_numbers_of_micro_batches(group, tiny_config):
    rows = make_rows(
        ["xx" + "p" * 9 + "r" * 9, "xxxrrrrr", "xxprrr", "xrrrrr"], [0.75, -0.25, -0.25, -0.25]
    )
    # 20 tokens in one micro-batch, or 8 + 6 + 6 in three of one row.
    assert shards_of(rows) == [[0], [1, 2, 3]]
    check_two_are_as_one(group, tiny_config, rows, max_tokens_per_microbatch=8)


def test_a_learner_may_have_no_signal(group, tiny_config):
    rows = make_rows(["xxpppppprrrr", "xrrrr", "xpppprrrrrr", "xrrrrrrr"], [0.5, -0.5, 0.0, 0.0])
    assert shards_of(rows) == [[0, 1], [2, 3]]
    results = check_two_are_as_one(group, tiny_config, rows)
    assert results[metrics.NUM_SKIPPED_ROWS] == 2


def test_no_learner_may_have_signal_or_prefixes(group, tiny_config):
    rows = make_rows(["xxrrr", "xrrrr", "xrr"], [0.0, 0.0, 0.0])
    results = check_two_are_as_one(group, tiny_config, rows)
    assert results[metrics.GRAD_NORM] == 0.0


def test_demonstrations_are_averaged_over_the_tokens_of_both(group, tiny_config):
    rows = make_rows(["xxddddddd", "xd", "xxdd"], [0.0] * 3)
    results = check_two_are_as_one(group, tiny_config, rows, method="sft")
    assert results[metrics.GRAD_NORM] > 0


def luffy_groups():
    """Two groups of two rollouts and a demonstration that is a member; the rewards are mixed."""
    return make_rows(
        ["xxrrr", "xxrrrrrr", "xxDDDDDDD", "xxxrr", "xxxrrrr", "xxxDDD"],
        [-1 / 3, -1 / 3, 2 / 3, 2 / 3, -1 / 3, -1 / 3],
    )


def test_demonstrations_that_are_members_count_on_both(group, tiny_config):
    # One learner has two demonstrations and a rollout, the other three rollouts.
    assert shards_of(luffy_groups()) == [[0, 2, 5], [1, 3, 4]]
    results = check_two_are_as_one(group, tiny_config, luffy_groups(), method="luffy")
    assert results[metrics.GRAD_NORM] > 0


def test_the_separate_step_is_averaged_over_the_tokens_of_both(group, tiny_config):
    rows = make_rows(["xxddddddd", "xd", "xxdd", "xxxd"], [0.0] * 4)
    update_settings = {"objective": "imitation"}
    results = check_two_are_as_one(
        group, tiny_config, rows, method="relift", update_settings=update_settings
    )
    assert results[metrics.GRAD_NORM] > 0


def test_scheduled_and_weighed_terms_are_the_same_on_both(group, tiny_config):
    # CHORD in iteration 300: both terms; rows of the two kinds on both learners.
    rows = make_rows(
        ["xxrrr", "xxrrrrrr", "xxddddd", "xxxrr", "xxxrrrr", "xxxddd"],
        [0.5, -0.5, 0.0, -0.25, 0.25, 0.0],
    )
    update_settings = {"schedule_iteration": 300}
    results = check_two_are_as_one(
        group, tiny_config, rows, method="chord", update_settings=update_settings
    )
    assert results[metrics.DEMONSTRATION_LOSS] > 0


def test_two_learners_step_each_objective_with_its_own_optimizer(group, tiny_config):
    settings = {"method": "relift", "lr": 1e-3, "max_tokens_per_microbatch": 12}
    local = build_learner(tiny_config.training(**settings))
    set_up(group, local, **settings)
    before = weights_of(local)
    failed = make_rows(["xxddddddd", "xd", "xxdd", "xxxd"], [0.0] * 4)
    for rows, objective in ((two_groups(), None), (failed, "imitation"), (two_groups(), None)):
        update(local, rows, objective=objective)
        update_both(group, rows, objective=objective)
    first, second = on_each(group, weights_of)
    for name, expected in weights_of(local).items():
        assert torch.equal(first[name], second[name])
        # As below: rounding near 0 becomes whole steps of AdamW.
        error = (first[name] - expected).abs().mean()
        assert error <= 1e-2 * (expected - before[name]).abs().mean()

    def num_states(learner):
        return {name: len(opt.state) for name, opt in learner._named_optimizers.items()}

    counts = on_each(group, num_states)
    assert counts == [num_states(local)] * 2
    assert min(counts[0].values()) > 0


def test_a_step_that_is_not_finite_is_left_out_by_both(group, tiny_config):
    local = build_learner(tiny_config)
    set_up(group, local, lr=0.1)

    def break_one_weight(learner):
        weight = model_of(learner).get_parameter("model.norm.weight")
        with torch.no_grad():
            weight[0] = float("nan")

    on_each(group, break_one_weight)
    rows = make_rows(["xxrrr", "xrrrr"], [0.5, -0.5])
    results, _ = update_both(group, rows)
    for result in results:
        assert result[metrics.NUM_NONFINITE_STEPS] == 1
    for weights in on_each(group, weights_of):
        assert torch.equal(weights["lm_head.weight"], weights_of(local)["lm_head.weight"])


def test_several_steps_keep_the_learners_in_step(group, tiny_config):
    settings = {"lr": 1e-3, "grad_clip": 0.1, "max_tokens_per_microbatch": 12}
    local = build_learner(tiny_config.training(**settings))
    set_up(group, local, **settings)
    before = weights_of(local)
    rows = two_groups([0, 0, 1, 1])
    update(local, rows, num_epochs=2)
    update_both(group, rows, num_epochs=2)
    first, second = on_each(group, weights_of)
    for name, expected in weights_of(local).items():
        assert torch.equal(first[name], second[name])
        # AdamW turns the rounding of gradients near 0 into whole steps: compare the mean.
        error = (first[name] - expected).abs().mean()
        assert error <= 1e-2 * (expected - before[name]).abs().mean()


def test_values_of_logged_rows_come_from_the_learner_that_holds_them(group, tiny_config):
    local = build_learner(tiny_config)
    set_up(group, local, lr=0.0)
    update(local, two_groups())
    update_both(group, two_groups())
    reports = on_each(group, lambda learner: learner.take_report())
    _, expected = local.take_report()
    assert [set(by_row) for _, by_row in reports] == [{0, 3}, {1, 2}]
    for _, by_row in reports:
        for index, row in by_row.items():
            assert row["kept"] == expected[index]["kept"]
            assert row["weight"] == expected[index]["weight"]
            np.testing.assert_allclose(row["entropy"], expected[index]["entropy"], atol=1e-5)
