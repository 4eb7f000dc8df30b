"""The invariants of the loss, and negative controls: each check must reject a broken piece."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.core import tokens
from prefix_rft_rllib.core.losses import policy_loss
from prefix_rft_rllib.core.token_selection import All, BottomEntropy, Random, TopEntropy
from prefix_rft_rllib.core.token_weights import (
    ConstantLength,
    TrajectoryAdvantage,
    prepare_weights,
)
from prefix_rft_rllib.methods import METHODS, Method, build
from tests.token_batches import batches, make_columns, widen

T_MAX = 10
ALL_METHODS = [build(name) for name in METHODS]


def gradient(method, columns, logp, pieces=None):
    """Loss and d loss / d logp; `pieces` are the micro-batches' row numbers."""
    prepared = prepare_weights(method.rules, columns, max_response_tokens=T_MAX)
    logp = logp.clone().requires_grad_()
    total = 0.0
    for rows in pieces or [torch.arange(columns.num_rows)]:
        weights = prepared.rows(rows).weights(logp[rows])
        terms = policy_loss(weights, logp[rows], columns.old_logp[rows], clip=method.clip)
        terms.loss.backward()
        total += terms.loss.item()
    return total, logp.grad


def moved_logp(columns, seed=0):
    noise = np.random.default_rng(seed).normal(0, 0.3, columns.old_logp.shape)
    return columns.old_logp + torch.tensor(noise, dtype=torch.float32)


def check_gradient_is_minus_the_weights(method, columns):
    prepared = prepare_weights(method.rules, columns, max_response_tokens=T_MAX)
    weights = prepared.weights(columns.old_logp)
    _, grad = gradient(method, columns, columns.old_logp)
    assert torch.equal(grad, -(weights.policy + weights.imitation))


def check_prompt_and_padding_have_no_gradient(method, columns):
    _, grad = gradient(method, columns, columns.old_logp)
    trainable = columns.is_prefix | columns.is_response | columns.is_demonstration
    assert not grad[~trainable].any()
    weights = prepare_weights(method.rules, columns, max_response_tokens=T_MAX)
    for rule_weights in weights.rules:
        is_region = columns.in_region(rule_weights.rule.region)
        codes = columns.region[rule_weights.is_kept].tolist()
        assert set(codes) <= {tokens.TRAINABLE_REGIONS[rule_weights.rule.region]}
        assert not rule_weights.static[~is_region].any()


def check_layout_changes_nothing(method, columns, seed=0):
    generator = np.random.default_rng(seed)
    logp = moved_logp(columns, seed)
    loss, grad = gradient(method, columns, logp)
    order = torch.tensor(generator.permutation(columns.num_rows))
    other = widen(columns.rows(order), 3)
    wide_logp = torch.nn.functional.pad(logp[order], (0, 3), value=float("nan"))
    pieces = torch.tensor_split(torch.arange(columns.num_rows), int(generator.integers(1, 4)))
    other_loss, other_grad = gradient(method, other, wide_logp, pieces)
    assert torch.equal(other_grad[:, :-3], grad[order])
    assert not other_grad[:, -3:].any()
    # The sum runs in another order: only rounding may differ.
    assert other_loss == pytest.approx(loss, rel=1e-5, abs=1e-6)


def slow_prefix_rft_loss(columns, logp, keep_fraction, num_rollouts, clip=0.2):
    """Sections 1.9 and 1.10 of the definitions, token by token in float64."""
    candidates = []
    for row in range(columns.num_rows):
        for position in range(columns.region.shape[1]):
            if columns.region[row, position] == 2:
                candidates.append((-columns.entropy[row, position].item(), row, position))
    keep = -(-len(candidates) * int(keep_fraction * 100) // 100)
    kept = {(row, position) for _, row, position in sorted(candidates)[:keep]}
    loss, grad = 0.0, np.zeros(columns.region.shape)
    for row in range(columns.num_rows):
        advantage = columns.advantage[row].item()
        for position in range(columns.region.shape[1]):
            code = columns.region[row, position].item()
            if code == 3 or (row, position) in kept:
                ratio = np.exp(
                    logp[row, position].double().item()
                    - columns.old_logp[row, position].double().item()
                )
                inner = ratio * advantage, np.clip(ratio, 1 - clip, 1 + clip) * advantage
                loss -= min(inner) / num_rollouts / T_MAX
                if inner[0] <= inner[1]:
                    grad[row, position] = -ratio * advantage / num_rollouts / T_MAX
    return loss, grad


def two_groups():
    """Two groups of two rollouts, the first of each with a prefix."""
    columns = make_columns(
        ["xxpppr", "xxrr", "xppr", "xrrr"],
        [0.5, -0.5, 0.0, 0.0],
        [
            [9, 9, 0.5, 2.5, 1.0, 3],
            [9, 9, 3, 3],
            [9, 2.0, 0.1, 3],
            [9, 3, 3, 3],
        ],
    )
    old_logp = torch.full_like(columns.old_logp, -1.0)
    return dataclasses.replace(columns, old_logp=old_logp)


def check_the_hand_worked_batch():
    # N_prefix = 5, ceil(0.2 * 5) = 1 kept: entropy 2.5 at row 0, position 3. Scale 1 / (4 * 10).
    # Weights +-0.5 / 40 = +-0.0125; the second group's rewards are equal: all 0.
    columns = two_groups()
    method = build("prefix_rft")
    a = 0.5 / 40
    loss, grad = gradient(method, columns, columns.old_logp)
    expected = [[0, 0, 0, -a, 0, -a], [0, 0, a, a, 0, 0], [0] * 6, [0] * 6]
    torch.testing.assert_close(grad, torch.tensor(expected), rtol=1e-6, atol=0)
    # Minus the sum of the weights at ratio 1: -(2a - 2a).
    assert loss == pytest.approx(0.0, abs=1e-9)
    # Ratio 1.5 everywhere: positive weights are clipped at 1.2, negative ones are not:
    # -(2 * 1.2 a - 2 * 1.5 a) = 0.6 a.
    loss, grad = gradient(method, columns, columns.old_logp + float(np.log(1.5)))
    assert loss == pytest.approx(0.6 * a, rel=1e-5)
    expected = [[0] * 6, [0, 0, 1.5 * a, 1.5 * a, 0, 0], [0] * 6, [0] * 6]
    torch.testing.assert_close(grad, torch.tensor(expected), rtol=1e-5, atol=0)


@pytest.mark.parametrize("method", ALL_METHODS, ids=lambda method: method.name)
@settings(max_examples=30)
@given(columns=batches())
def test_at_the_old_policy_the_gradient_is_minus_the_weight_table(method, columns):
    check_gradient_is_minus_the_weights(method, columns)


@pytest.mark.parametrize("method", ALL_METHODS, ids=lambda method: method.name)
@settings(max_examples=30)
@given(columns=batches())
def test_prompt_and_padding_never_carry_weight(method, columns):
    check_prompt_and_padding_have_no_gradient(method, columns)


@pytest.mark.parametrize("method", ALL_METHODS, ids=lambda method: method.name)
@settings(max_examples=30)
@given(columns=batches(), seed=st.integers(0, 1000))
def test_rows_order_padding_and_micro_batches_change_nothing(method, columns, seed):
    check_layout_changes_nothing(method, columns, seed)


def test_prefix_rft_on_two_groups_by_hand():
    check_the_hand_worked_batch()


@settings(max_examples=40)
@given(batches(), st.sampled_from([0.2, 0.5]), st.integers(0, 1000))
def test_prefix_rft_agrees_with_a_plain_float64_loop(columns, keep_fraction, seed):
    method = build("prefix_rft", {"entropy_keep_fraction": keep_fraction})
    logp = moved_logp(columns, seed)
    loss, grad = gradient(method, columns, logp)
    num_rollouts = int(columns.is_member.sum())
    slow_loss, slow_grad = slow_prefix_rft_loss(columns, logp, keep_fraction, num_rollouts)
    assert loss == pytest.approx(slow_loss, rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(grad.numpy(), slow_grad, rtol=1e-5, atol=1e-9)


@given(batches())
def test_sft_weights_are_one_over_the_number_of_demonstration_tokens(columns):
    _, grad = gradient(build("sft"), columns, columns.old_logp)
    count = sum(row.count(4) for row in columns.region.tolist())
    for row, codes in enumerate(columns.region.tolist()):
        for position, code in enumerate(codes):
            expected = -1 / count if code == 4 else 0.0
            assert grad[row, position].item() == pytest.approx(expected, rel=1e-6, abs=0)


def with_keep(keep):
    method = build("prefix_rft")
    prefix_rule = dataclasses.replace(method.rules[1], keep=keep)
    return dataclasses.replace(method, rules=(method.rules[0], prefix_rule))


@settings(max_examples=30)
@given(batches(), st.integers(0, 100))
def test_selections_never_change_response_weights(columns, percent):
    reference = gradient(with_keep(All()), columns, columns.old_logp)[1]
    for kind in (TopEntropy, BottomEntropy, Random):
        grad = gradient(with_keep(kind(percent / 100)), columns, columns.old_logp)[1]
        assert torch.equal(grad[columns.is_response], reference[columns.is_response])


@settings(max_examples=30)
@given(batches())
def test_fraction_one_updates_all_and_fraction_zero_freezes_bit_for_bit(columns):
    update_all = gradient(with_keep(All()), columns, columns.old_logp)[1]
    method = build("prefix_rft")
    frozen = dataclasses.replace(method, rules=method.rules[:1])
    freeze = gradient(frozen, columns, columns.old_logp)[1]
    for kind in (TopEntropy, BottomEntropy, Random):
        grads = [gradient(with_keep(kind(f)), columns, columns.old_logp)[1] for f in (1.0, 0.0)]
        assert torch.equal(grads[0], update_all)
        assert torch.equal(grads[1], freeze)
        assert not grads[1][columns.is_prefix].any()


def test_prefix_rft_without_prefixes_is_rft_bit_for_bit():
    columns = make_columns(["xxrrr", "xxrr", "xr", "xrrrr"], [0.75, -0.25, -0.25, -0.25])
    logp = moved_logp(columns)
    for layout in (columns, widen(columns, 2)):
        wide = torch.nn.functional.pad(logp, (0, layout.region.shape[1] - logp.shape[1]))
        ours = gradient(build("prefix_rft"), layout, wide)
        theirs = gradient(build("rft"), layout, wide)
        assert ours[0] == theirs[0]
        assert torch.equal(ours[1], theirs[1])


def test_the_ratio_is_one_where_old_and_new_policy_agree():
    columns = two_groups()
    prepared = prepare_weights(build("prefix_rft").rules, columns, max_response_tokens=T_MAX)
    weights = prepared.weights(columns.old_logp)
    terms = policy_loss(weights, columns.old_logp, columns.old_logp)
    assert (terms.ratio == 1).all()
    assert not terms.is_clipped.any()


def shifted_mask(columns, name):
    return (columns.region == tokens.TRAINABLE_REGIONS[name]).roll(1, dims=1)


def flipped_advantage(value, columns, iteration):
    return -columns.advantage


def width_dependent(scale, columns, is_region, max_response_tokens, pool):
    size = columns.input_ids.numel()
    return torch.full_like(columns.advantage, size, dtype=torch.float64)


def test_negative_control_a_mask_shifted_by_one_is_rejected(monkeypatch):
    monkeypatch.setattr(tokens.TokenColumns, "in_region", shifted_mask)
    with pytest.raises(AssertionError):
        check_the_hand_worked_batch()
    with pytest.raises(AssertionError):
        check_prompt_and_padding_have_no_gradient(build("rft"), two_groups())


def test_negative_control_a_flipped_advantage_is_rejected(monkeypatch):
    monkeypatch.setattr(TrajectoryAdvantage, "base", flipped_advantage)
    with pytest.raises(AssertionError):
        check_the_hand_worked_batch()


def test_negative_control_a_flipped_loss_is_rejected(monkeypatch):
    right_loss = policy_loss

    def flipped_loss(*args, **kwargs):
        terms = right_loss(*args, **kwargs)
        return terms._replace(loss=-terms.loss)

    monkeypatch.setitem(globals(), "policy_loss", flipped_loss)
    for method in ALL_METHODS:
        columns = make_columns(["xpr", "xdd"], [1.0, 0.0])
        with pytest.raises(AssertionError):
            check_gradient_is_minus_the_weights(method, columns)


def test_negative_control_a_width_dependent_scale_is_rejected(monkeypatch):
    monkeypatch.setattr(ConstantLength, "divisor", width_dependent)
    with pytest.raises(AssertionError):
        check_layout_changes_nothing(build("prefix_rft"), two_groups())
    with pytest.raises(AssertionError):
        check_the_hand_worked_batch()


def test_negative_control_a_mean_per_micro_batch_is_rejected():
    columns = two_groups()
    whole = gradient(build("rft"), columns, columns.old_logp)[1]
    halves = [columns.rows(slice(0, 2)), columns.rows(slice(2, 4))]
    apart = torch.cat([gradient(build("rft"), half, half.old_logp)[1] for half in halves])
    assert not torch.equal(apart, whole)


def test_every_method_is_covered_here():
    assert all(isinstance(method, Method) for method in ALL_METHODS)
    assert {method.name for method in ALL_METHODS} == set(METHODS)
