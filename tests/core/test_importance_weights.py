"""The correction for a sampler that is not quite the policy: only where it sampled, truncated."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.core.importance_weights import truncated_importance_weights
from tests.core.objective_cases import loss_and_gradient, moved_logp, objective_of, prepared
from tests.token_batches import batches, make_columns, with_importance_weights

NAN = float("nan")


def test_the_weights_by_hand():
    # exp(-1 + 1.5) = e^0.5 = 1.6487; exp(-2 + 1) = 0.3679; exp(3) is cut to 2; not sampled: 1.
    old_logp = torch.tensor([[-1.0, -2.0, -1.0, -0.5]])
    engine_logp = torch.tensor([[-1.5, -1.0, -4.0, NAN]])
    weights = truncated_importance_weights(old_logp, engine_logp, 2.0)
    expected = [math.exp(0.5), math.exp(-1), 2.0, 1.0]
    assert weights[0].tolist() == pytest.approx(expected, rel=1e-6)
    assert weights.dtype == torch.float32
    # Truncated above only.
    assert truncated_importance_weights(old_logp, engine_logp, 1.0)[0].tolist() == pytest.approx(
        [1.0, math.exp(-1), 1.0, 1.0], rel=1e-6
    )


def test_a_gap_beyond_float32_is_truncated_and_no_nan_comes_out():
    old_logp = torch.tensor([[0.0, -500.0, NAN]])
    engine_logp = torch.tensor([[-500.0, 0.0, NAN]])
    assert truncated_importance_weights(old_logp, engine_logp, 2.0).tolist() == [[2.0, 0.0, 1.0]]


def test_no_gradient_flows_through_the_weights():
    old_logp = torch.tensor([[-1.0]], requires_grad=True)
    assert not truncated_importance_weights(old_logp, torch.tensor([[-2.0]]), 2.0).requires_grad


@settings(max_examples=40)
@given(batches(), st.sampled_from([1.0, 1.5, 2.0]))
def test_only_sampled_tokens_are_weighed(columns, cap):
    weights = truncated_importance_weights(columns.old_logp, columns.engine_logp, cap)
    assert bool((weights[~columns.is_response] == 1).all())
    assert bool((weights <= cap).all())
    gaps = columns.old_logp - columns.engine_logp
    expected = [min(math.exp(gap), cap) for gap in gaps[columns.is_response].tolist()]
    assert weights[columns.is_response].tolist() == pytest.approx(expected, rel=1e-6)


def test_weights_multiply_the_policy_stream_alone_by_hand():
    # GRPO's rows have 2 and 1 sampled tokens: 1 / (2 * 2) and -1 / 2, times 0.5, 2 and 1.5.
    # The prefix is imitated: 0.03 / 1, whatever its importance weight.
    columns = make_columns(["xprr", "xr"], [1.0, -1.0])
    importance = torch.tensor([[1.0, 9.0, 0.5, 2.0], [1.0, 1.5, 1.0, 1.0]])
    columns = dataclasses.replace(columns, importance_weight=importance)
    objective = objective_of("uft", imitation_coeff=0.03)
    weights = prepared(objective, columns).weights(columns.old_logp)
    expected = [0, 0, 0.125, 0.5, 0, -0.75, 0, 0]
    assert weights.policy.flatten().tolist() == pytest.approx(expected, rel=1e-6)
    assert weights.imitation.flatten().tolist() == pytest.approx([0, 0.03] + [0] * 6, rel=1e-6)


def test_the_clip_acts_on_the_ratio_and_not_on_the_importance_weight():
    # Weight 1 / 10 times 2. Ratio 1.1 is inside the clip: -1.1 * 0.2; ratio 1.3 outside: none.
    columns = make_columns(["xr"], [1.0])
    columns = dataclasses.replace(columns, importance_weight=torch.tensor([[1.0, 2.0]]))
    for ratio, slope, value in ((1.1, -0.22, 1.1), (1.3, 0.0, 1.2)):
        logp = columns.old_logp + math.log(ratio)
        loss, grad = loss_and_gradient(objective_of("rft"), columns, logp)
        assert grad[0, 1].item() == pytest.approx(slope, rel=1e-5)
        assert loss == pytest.approx(-0.2 * value, rel=1e-5)


@settings(max_examples=30)
@given(batches(), st.integers(0, 1000))
def test_a_weight_of_one_is_no_weight_bit_for_bit(columns, seed):
    ones = dataclasses.replace(columns, importance_weight=torch.ones_like(columns.old_logp))
    logp = moved_logp(columns, seed)
    plain = loss_and_gradient(objective_of("prefix_rft"), columns, logp)
    weighed = loss_and_gradient(objective_of("prefix_rft"), ones, logp)
    assert weighed[0] == plain[0]
    assert torch.equal(weighed[1], plain[1])


@settings(max_examples=30)
@given(batches(), st.integers(0, 1000))
def test_weights_change_neither_prefix_tokens_nor_demonstrations(columns, seed):
    weighed = with_importance_weights(columns, seed)
    for name in ("prefix_rft", "luffy", "uft", "chord"):
        plain = prepared(objective_of(name), columns, 350)
        other = prepared(objective_of(name), weighed, 350)
        for before, after in zip(plain.rules, other.rules, strict=True):
            if before.rule.region != "response":
                assert torch.equal(before.static, after.static)
        assert torch.equal(plain.active_rows(), other.active_rows())
