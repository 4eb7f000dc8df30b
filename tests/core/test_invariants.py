"""The invariants of the loss, and negative controls: each check must reject a broken piece."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.core import tokens
from prefix_rft_rllib.core.losses import policy_loss
from prefix_rft_rllib.core.token_values import PolicyShaped, TrajectoryAdvantage, Uncertainty
from prefix_rft_rllib.core.token_weights import ConstantLength, SequenceMean, TokenMean
from prefix_rft_rllib.methods import METHODS
from tests.core import objective_cases
from tests.core.objective_cases import (
    CASES,
    ITERATIONS,
    T_MAX,
    loss_and_gradient,
    moved_logp,
    objective_of,
    prepared,
    slow_loss_and_gradient,
)
from tests.token_batches import batches, make_columns, widen, with_importance_weights

every_case = pytest.mark.parametrize("case", CASES, ids=str)
any_batch = batches(importance=True)
any_iteration = st.sampled_from(ITERATIONS)


def check_gradient_is_minus_the_weights(objective, columns, iteration=0):
    weights = prepared(objective, columns, iteration).weights(columns.old_logp)
    _, grad = loss_and_gradient(objective, columns, columns.old_logp, iteration=iteration)
    assert torch.equal(grad, -(weights.policy + weights.imitation))


def check_against_the_slow_loop(case, columns, logp, iteration):
    loss, grad = loss_and_gradient(case.objective, columns, logp, iteration=iteration)
    slow_loss, slow_grad, _ = slow_loss_and_gradient(case.slow, columns, logp, iteration=iteration)
    assert loss == pytest.approx(slow_loss, rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(grad.numpy(), slow_grad, rtol=1e-5, atol=1e-9)


def check_prompt_and_padding_have_no_gradient(objective, columns, logp, iteration=0):
    _, grad = loss_and_gradient(objective, columns, logp, iteration=iteration)
    trainable = columns.is_prefix | columns.is_response | columns.is_demonstration
    assert not grad[~trainable].any()
    for rule_weights in prepared(objective, columns, iteration).rules:
        is_region = columns.in_region(rule_weights.rule.region)
        codes = columns.region[rule_weights.is_kept].tolist()
        assert set(codes) <= {tokens.TRAINABLE_REGIONS[rule_weights.rule.region]}
        assert not rule_weights.static[~is_region].any()


def check_layout_changes_nothing(objective, columns, seed=0, iteration=0):
    generator = np.random.default_rng(seed)
    logp = moved_logp(columns, seed)
    loss, grad = loss_and_gradient(objective, columns, logp, iteration=iteration)
    order = torch.tensor(generator.permutation(columns.num_rows))
    other = widen(columns.rows(order), 3)
    wide_logp = torch.nn.functional.pad(logp[order], (0, 3), value=float("nan"))
    pieces = torch.tensor_split(torch.arange(columns.num_rows), int(generator.integers(1, 4)))
    other_loss, other_grad = loss_and_gradient(
        objective, other, wide_logp, iteration=iteration, pieces=pieces
    )
    assert torch.equal(other_grad[:, :-3], grad[order])
    assert not other_grad[:, -3:].any()
    # The sum runs in another order: only rounding may differ.
    assert other_loss == pytest.approx(loss, rel=1e-5, abs=1e-6)


@every_case
@settings(max_examples=15, deadline=None)
@given(columns=any_batch, iteration=any_iteration)
def test_at_the_old_policy_the_gradient_is_minus_the_weight_table(case, columns, iteration):
    check_gradient_is_minus_the_weights(case.objective, columns, iteration)
    # And the table is the definition's.
    check_against_the_slow_loop(case, columns, columns.old_logp, iteration)


@every_case
@settings(max_examples=15, deadline=None)
@given(columns=any_batch, iteration=any_iteration, seed=st.integers(0, 1000))
def test_away_from_the_old_policy_loss_and_gradient_are_those_of_a_plain_loop(
    case, columns, iteration, seed
):
    check_against_the_slow_loop(case, columns, moved_logp(columns, seed), iteration)


@every_case
@settings(max_examples=15, deadline=None)
@given(columns=any_batch, iteration=any_iteration)
def test_prompt_and_padding_never_carry_weight(case, columns, iteration):
    logp = moved_logp(columns)
    check_prompt_and_padding_have_no_gradient(case.objective, columns, logp, iteration)


@every_case
@settings(max_examples=15, deadline=None)
@given(columns=any_batch, seed=st.integers(0, 1000), iteration=any_iteration)
def test_rows_order_padding_and_micro_batches_change_nothing(case, columns, seed, iteration):
    check_layout_changes_nothing(case.objective, columns, seed, iteration)


def test_the_batches_reach_every_branch_of_the_loop():
    # What the tests above draw from contains all kinds of rows, active clips, and weights.
    seen = set()

    @settings(max_examples=200, deadline=None, database=None)
    @given(any_batch)
    def look(columns):
        seen.update(f"region {code}" for code in columns.region.unique().tolist())
        seen.add(f"importance weights: {columns.importance_weight is not None}")
        is_member = columns.is_demonstration.any(dim=1) & columns.is_member
        if bool(columns.advantage[is_member].any()):
            seen.add("member demonstration with advantage")
        is_plain = columns.is_response.any(dim=1) & ~columns.is_prefix.any(dim=1)
        seen.add(f"rollout without prefix: {bool(is_plain.any())}")
        logp = moved_logp(columns)
        weights = prepared(objective_of("prefix_rft"), columns).weights(logp)
        terms = policy_loss(weights, logp, columns.old_logp)
        seen.add(f"clipped: {bool(terms.is_clipped.any())}")

    look()
    assert seen >= {f"region {code}" for code in range(5)}
    assert seen >= {f"{name}: True" for name in ("importance weights", "clipped")}
    assert seen >= {"importance weights: False", "rollout without prefix: True"}
    assert "member demonstration with advantage" in seen


def test_prefix_rft_without_prefixes_is_rft_bit_for_bit():
    columns = make_columns(["xxrrr", "xxrr", "xr", "xrrrr"], [0.75, -0.25, -0.25, -0.25])
    logp = moved_logp(columns)
    for layout in (columns, widen(columns, 2), with_importance_weights(columns)):
        wide = torch.nn.functional.pad(logp, (0, layout.region.shape[1] - logp.shape[1]))
        for name in ("prefix_rft", "prefix_rft_adaptive", "dr_po", "update_all"):
            ours = loss_and_gradient(objective_of(name), layout, wide)
            theirs = loss_and_gradient(objective_of("rft"), layout, wide)
            assert ours[0] == theirs[0]
            assert torch.equal(ours[1], theirs[1])


def test_every_method_is_covered_here():
    assert {case.method for case in CASES} == set(METHODS)
    assert len(METHODS) == 22
    other_settings = {case.method for case in CASES if "=" in case.name}
    # These three have no setting that reaches a rule.
    assert set(METHODS) - other_settings <= {"rft", "grpo", "dr_po", "freeze_prefix", "update_all"}


def case_of(name):
    return next(case for case in CASES if case.name == name)


def batch_of_all_kinds():
    """All regions, with advantages of both signs. log pi_old = -1 everywhere."""
    columns = make_columns(["xpprr", "xrr", "xDDD", "xdd"], [0.5, -0.25, 0.75, 0.0])
    return dataclasses.replace(columns, old_logp=torch.full_like(columns.old_logp, -1.0))


def check_all(name, iteration=350):
    columns = batch_of_all_kinds()
    check_against_the_slow_loop(case_of(name), columns, moved_logp(columns), iteration)


def flip(function):
    def flipped(self, *args):
        return -function(self, *args)

    return flipped


@pytest.mark.parametrize(
    ("name", "value_class", "attribute"),
    [
        ("prefix_rft", TrajectoryAdvantage, "base"),
        ("luffy", PolicyShaped, "base"),
        ("luffy", PolicyShaped, "policy_factor"),
        ("chord", Uncertainty, "policy_factor"),
    ],
)
def test_negative_control_a_flipped_value_is_rejected(name, value_class, attribute, monkeypatch):
    check_all(name)
    monkeypatch.setattr(value_class, attribute, flip(getattr(value_class, attribute)))
    with pytest.raises(AssertionError):
        check_all(name)


def test_negative_control_a_flipped_loss_is_rejected(monkeypatch):
    def flipped_loss(*args, **kwargs):
        terms = policy_loss(*args, **kwargs)
        return terms._replace(loss=-terms.loss)

    monkeypatch.setattr(objective_cases, "policy_loss", flipped_loss)
    for case in CASES:
        with pytest.raises(AssertionError):
            check_gradient_is_minus_the_weights(case.objective, batch_of_all_kinds(), 350)


@pytest.mark.parametrize(
    ("name", "scale"),
    [("prefix_rft", ConstantLength), ("grpo", SequenceMean), ("sft", TokenMean)],
)
def test_negative_control_a_width_dependent_scale_is_rejected(name, scale, monkeypatch):
    right = scale.divisor

    def width_dependent(self, columns, *args):
        return right(self, columns, *args) * columns.region.shape[1] / T_MAX

    monkeypatch.setattr(scale, "divisor", width_dependent)
    with pytest.raises(AssertionError):
        check_layout_changes_nothing(objective_of(name), batch_of_all_kinds())
    with pytest.raises(AssertionError):
        check_all(name)


def test_negative_control_a_mean_per_micro_batch_is_rejected():
    columns = batch_of_all_kinds()
    for name in ("rft", "grpo", "sft"):
        objective = objective_of(name)
        whole = loss_and_gradient(objective, columns, columns.old_logp)[1]
        parts = [columns.rows(rows) for rows in (slice(0, 1), slice(1, 3), slice(3, 4))]
        apart = [loss_and_gradient(objective, part, part.old_logp)[1] for part in parts]
        assert not torch.equal(torch.cat(apart), whole)


def test_negative_control_a_factor_that_moves_with_the_policy_is_no_constant():
    # CHORD's and LUFFY's factors follow the policy being trained, not the old one.
    columns = batch_of_all_kinds()
    later = torch.full_like(columns.old_logp, math.log(0.5))
    for name in ("luffy", "chord"):
        weights = prepared(objective_of(name), columns, 350)
        now, then = (weights.weights(logp).imitation for logp in (later, columns.old_logp))
        assert not torch.allclose(now, then, rtol=0.01)
