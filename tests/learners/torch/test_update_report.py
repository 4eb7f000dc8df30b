"""What an update tells: metrics by hand, and the values of logged rows."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from prefix_rft_rllib import metrics
from prefix_rft_rllib.core.losses import policy_loss
from prefix_rft_rllib.core.token_weights import prepare_weights
from prefix_rft_rllib.learners.torch.collectives import LearnerCollectives
from prefix_rft_rllib.learners.torch.update_report import UpdateReport
from prefix_rft_rllib.methods import build
from prefix_rft_rllib.rollouts import row_data
from tests.learners.torch import slow_update
from tests.learners.torch.learners import build_learner, make_rows, two_groups, update
from tests.token_batches import make_columns

RECORD = {"minibatch": 0, "step": 0, "loss": 0.25, "grad_norm": 2.0, "lr": 1e-3}


def small_batch():
    columns = make_columns(
        ["xxpppr", "xxrr", "xppr", "xdd"],
        [0.5, -0.5, 0.0, 0.0],
        [[9, 9, 0.5, 2.5, 1.0, 3.0], [9, 9, 2.0, 1.0], [9, 2.0, 0.0, 2.0], [9, 1.0, 1.0]],
    )
    old_logp = torch.full_like(columns.old_logp, -1.0)
    old_logp[0, 2:5] = torch.tensor([-0.5, -3.0, -1.0])
    old_logp[3, 1:3] = torch.tensor([-2.0, -4.0])
    # The engine's are -1 at sampled tokens, but for the last token of the first row.
    engine_logp = columns.engine_logp.clone()
    engine_logp[0, 5] = -1.5
    return dataclasses.replace(columns, old_logp=old_logp, engine_logp=engine_logp)


def filled_report(log_ratio):
    columns = small_batch()
    method = build("prefix_rft")
    prepared = prepare_weights(method.rules, columns, max_response_tokens=10)
    report = UpdateReport()
    report.add_minibatch_columns(columns, prepared)
    # Two micro-batches: sums do not see the cut.
    for rows in (slice(0, 1), slice(1, 4)):
        part = columns.rows(rows)
        logp = part.old_logp + log_ratio
        weights = prepared.rows(rows).weights(logp)
        report.add_microbatch(part, weights, policy_loss(weights, logp, part.old_logp))
    report.add_minibatch(RECORD, prepared)
    return report


def test_metrics_of_the_old_policy_by_hand():
    results = filled_report(0.0).results(LearnerCollectives())
    # Prefix entropies 0.5, 2.5, 1.0 | 2.0, 0.0; ceil(0.2 * 5) = 1 is kept, the one of 2.5.
    assert results[metrics.NUM_PREFIX_TOKENS] == 5
    assert results[metrics.NUM_KEPT_PREFIX_TOKENS] == 1
    assert results[metrics.ENTROPY_PREFIX] == pytest.approx(6.0 / 5)
    assert results[metrics.ENTROPY_PREFIX_KEPT] == 2.5
    # Sampled tokens 3.0 | 2.0, 1.0 | 2.0.
    assert results[metrics.ENTROPY_RESPONSE] == 2.0
    # -log pi of the prefix tokens: 0.5, 3, 1 | 1, 1; of the demonstration row: 2, 4.
    assert results[metrics.PREFIX_LOSS] == pytest.approx(6.5 / 5)
    assert results[metrics.DEMONSTRATION_LOSS] == 3.0
    # Four sampled tokens, a gap of 0.5 at one.
    assert results[metrics.ENGINE_LOGP_GAP_MEAN] == 0.125
    assert results[metrics.ENGINE_LOGP_GAP_MAX] == 0.5


def test_clip_fractions_count_tokens_whose_gradient_the_clip_removed():
    results = filled_report(math.log(1.5)).results(LearnerCollectives())
    # Ratio 1.5 at every token with weight: the kept prefix token and three sampled tokens.
    assert results[metrics.RATIO_PREFIX] == pytest.approx(1.5)
    assert results[metrics.RATIO_RESPONSE] == pytest.approx(1.5)
    # Above 1.2 the clip removes gradients of positive weights only: the kept prefix token and one
    # of the sampled ones. The third row, without advantage, has no gradient to remove.
    assert results[metrics.CLIP_FRACTION_PREFIX] == 1.0
    assert results[metrics.CLIP_FRACTION_RESPONSE] == pytest.approx(1 / 3)
    # Below 0.8 those of negative weights: the two sampled tokens of the second row.
    results = filled_report(math.log(0.5)).results(LearnerCollectives())
    assert results[metrics.CLIP_FRACTION_PREFIX] == 0.0
    assert results[metrics.CLIP_FRACTION_RESPONSE] == pytest.approx(2 / 3)


def test_means_over_no_token_are_left_out():
    results = filled_report(0.0).results(LearnerCollectives())
    assert metrics.DEMONSTRATION_LOSS in results
    columns = small_batch().rows(slice(1, 2))
    prepared = prepare_weights(build("prefix_rft").rules, columns, max_response_tokens=10)
    report = UpdateReport()
    report.add_minibatch_columns(columns, prepared)
    report.add_minibatch(RECORD, prepared)
    results = report.results(LearnerCollectives())
    absent = {metrics.ENTROPY_PREFIX, metrics.ENTROPY_PREFIX_KEPT, metrics.PREFIX_LOSS}
    absent |= {metrics.DEMONSTRATION_LOSS, metrics.RATIO_RESPONSE, metrics.KL_TO_REFERENCE}
    assert not absent & set(results)
    assert results[metrics.ENTROPY_RESPONSE] == 1.5
    assert set(results) <= set(metrics.LEARNER_METRICS)


def test_a_minibatch_is_recorded_with_what_its_selections_kept():
    report = filled_report(0.0)
    (record,) = report.minibatches
    assert {name: record[name] for name in RECORD} == RECORD
    assert record["selections"] == [
        {"region": "response", "keep": "All()", "num_region_tokens": 4, "num_kept_tokens": 4},
        {
            "region": "prefix",
            "keep": "TopEntropy(keep_fraction=0.2)",
            "num_region_tokens": 5,
            "num_kept_tokens": 1,
        },
    ]


def test_counts_and_losses_are_over_all_minibatches():
    report = filled_report(0.0)
    columns = small_batch()
    prepared = prepare_weights(build("prefix_rft").rules, columns, max_response_tokens=10)
    report.add_minibatch({**RECORD, "loss": 0.75, "grad_norm": 4.0, "lr": 1e-4}, prepared)
    report.add_minibatch({**RECORD, "loss": 0.5, "grad_norm": 3.0, "lr": 1e-5}, prepared)
    results = report.results(LearnerCollectives())
    assert results[metrics.LOSS] == 0.5
    assert results[metrics.GRAD_NORM] == 3.0
    assert results[metrics.LEARNING_RATE] == 1e-5
    assert results[metrics.NUM_OPTIMIZER_STEPS] == 3
    assert results[metrics.NUM_PREFIX_TOKENS] == 15
    assert results[metrics.NUM_KEPT_PREFIX_TOKENS] == 3


def test_the_metrics_of_an_update_are_those_of_the_initial_model(tiny_config):
    rows = two_groups()
    learner = build_learner(tiny_config)
    results = update(learner, rows)
    assert set(results) >= {metrics.LOSS, metrics.GRAD_NORM, metrics.ENTROPY_PREFIX_KEPT}
    model = slow_update.load_float64(tiny_config.model_path)
    kept = slow_update.kept_prefix_tokens(model, rows, 1.0)
    kept_entropies, prefix_logps, gaps = [], [], []
    for number, row in enumerate(rows):
        num_prefix = row_data.num_prefix_tokens_of(row)
        entropies = [value.item() for value in slow_update.entropies(model, row, 1.0)]
        logps = [value.item() for value in slow_update.token_logps(model, row, 1.0)]
        kept_entropies += [
            entropies[place] for place in range(num_prefix) if (number, place) in kept
        ]
        prefix_logps += logps[:num_prefix]
        gaps += np.abs(np.array(logps) - row_data.engine_logps_of(row))[num_prefix:].tolist()
    # 4 + 5 prefix tokens: ceil(0.2 * 9) = 2 are kept.
    assert results[metrics.NUM_KEPT_PREFIX_TOKENS] == len(kept_entropies) == 2
    assert results[metrics.ENTROPY_PREFIX_KEPT] == pytest.approx(np.mean(kept_entropies), rel=1e-5)
    assert results[metrics.PREFIX_LOSS] == pytest.approx(-np.mean(prefix_logps), rel=1e-5)
    assert results[metrics.ENGINE_LOGP_GAP_MEAN] == pytest.approx(np.mean(gaps), rel=1e-5)
    assert results[metrics.ENGINE_LOGP_GAP_MAX] == pytest.approx(max(gaps), rel=1e-5)
    loss = slow_update.prefix_rft_loss(
        model, model, rows, max_response_tokens=40, temperature=1.0
    ).item()
    assert results[metrics.LOSS] == pytest.approx(loss, rel=1e-4)


def test_logged_rows_tell_the_weight_in_units_of_the_advantage(tiny_config):
    rows = two_groups()
    rows[1].custom_data[row_data.IS_LOGGED] = False
    learner = build_learner(tiny_config)
    update(learner, rows)
    _, by_row = learner.take_report()
    assert set(by_row) == {0, 2, 3}
    model = slow_update.load_float64(tiny_config.model_path)
    kept = slow_update.kept_prefix_tokens(model, rows, 1.0)
    for number, values in by_row.items():
        num_prefix = row_data.num_prefix_tokens_of(rows[number])
        is_kept = [
            place >= num_prefix or (number, place) in kept for place in range(len(rows[number]))
        ]
        assert values["kept"] == is_kept
        advantage = rows[number].custom_data[row_data.ADVANTAGE]
        assert values["weight"] == [advantage if keep else 0.0 for keep in is_kept]
        logps = [value.item() for value in slow_update.token_logps(model, rows[number], 1.0)]
        entropies = [value.item() for value in slow_update.entropies(model, rows[number], 1.0)]
        np.testing.assert_allclose(values["old_logp"], logps, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(values["entropy"], entropies, rtol=1e-5, atol=1e-5)


def test_demonstration_rows_of_sft_are_logged_with_weight_one(tiny_config):
    learner = build_learner(tiny_config.training(method="sft"))
    update(learner, make_rows(["xxddd", "xdd"], [0.0, 0.0]))
    _, by_row = learner.take_report()
    assert by_row[0]["weight"] == [1.0, 1.0, 1.0]
    assert by_row[1]["weight"] == [1.0, 1.0]


def logged(config, rows, **kwargs):
    """Per-token values of the rows by a new learner."""
    learner = build_learner(config)
    update(learner, rows, **kwargs)
    return learner.take_report()[1]


def probabilities(values):
    return [math.exp(logp) for logp in values["old_logp"]]


def test_logged_weights_are_those_of_shaped_and_scheduled_values(tiny_config):
    # LUFFY: A * gamma * p / (p + gamma)^2 at the old policy, for demonstrations; A for the others.
    rows = make_rows(["xxrrr", "xrr", "xDDDD"], [-0.25, -0.25, 0.5])
    by_row = logged(tiny_config.training(method="luffy"), rows)
    assert by_row[0]["weight"] == [-0.25] * 3
    expected = [0.5 * 0.1 * p / (p + 0.1) ** 2 for p in probabilities(by_row[2])]
    assert by_row[2]["weight"] == pytest.approx(expected, rel=1e-5)
    # CHORD, iteration 100 of its stage: mu = 0.25, so 0.75 A and 0.25 p (1 - p).
    rows = make_rows(["xxrrr", "xrr", "xdddd"], [0.5, -0.5, 0.0])
    by_row = logged(tiny_config.training(method="chord"), rows, schedule_iteration=100)
    assert by_row[1]["weight"] == pytest.approx([-0.375] * 2)
    expected = [0.25 * p * (1 - p) for p in probabilities(by_row[2])]
    assert by_row[2]["weight"] == pytest.approx(expected, rel=1e-5)


def test_logged_weights_and_metrics_tell_of_importance_weights(tiny_config):
    rows = make_rows(["xxprrr", "xrr"], [0.5, -0.5])
    # Two tokens that the engine took for very improbable.
    rows[1].extra_model_outputs[Columns.ACTION_LOGP].data[-2:] -= 12.0
    tiny_config.training(method="update_all", importance_weight_cap=2.0)
    learner = build_learner(tiny_config)
    results = update(learner, rows)
    drawn, ratios = [], []
    for number, values in learner.take_report()[1].items():
        num_prefix = row_data.num_prefix_tokens_of(rows[number])
        advantage = rows[number].custom_data[row_data.ADVANTAGE]
        engine = row_data.engine_logps_of(rows[number])
        expected = [
            1.0 if place < num_prefix else min(math.exp(logp - engine[place]), 2.0)
            for place, logp in enumerate(values["old_logp"])
        ]
        assert values["weight"] == pytest.approx([advantage * w for w in expected], rel=1e-5)
        drawn += expected[num_prefix:]
        gaps = np.array(values["old_logp"]) - engine
        ratios += np.exp(gaps[num_prefix:]).tolist()
    assert results[metrics.IMPORTANCE_WEIGHT_MEAN] == pytest.approx(np.mean(drawn), rel=1e-5)
    truncated = [ratio > 2.0 for ratio in ratios]
    assert 0 < sum(truncated) < len(truncated)
    fraction = results[metrics.IMPORTANCE_WEIGHT_TRUNCATED_FRACTION]
    assert fraction == pytest.approx(np.mean(truncated), rel=1e-12)
    without = update(build_learner(tiny_config.training(importance_weight_cap=None)), rows)
    assert metrics.IMPORTANCE_WEIGHT_MEAN not in without


def test_every_update_has_a_report_of_its_own(tiny_config):
    learner = build_learner(tiny_config)
    update(learner, two_groups())
    update(learner, two_groups()[:2], iteration=1)
    minibatches, by_row = learner.take_report()
    assert [record["step"] for record in minibatches] == [2]
    assert set(by_row) == {0, 1}
