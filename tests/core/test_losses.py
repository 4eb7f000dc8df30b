import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.core.losses import entropy_bonus, kl_to_reference, policy_loss
from prefix_rft_rllib.core.surrogates import CISPO, GSPO, NoClip, PPOClip
from prefix_rft_rllib.core.token_weights import TokenWeights

DUAL_CLIP = PPOClip(0.2, dual=3.0)


def table(*values):
    return torch.tensor([values], dtype=torch.float64)


def policy_only(weight):
    return TokenWeights(policy=weight, imitation=torch.zeros_like(weight))


def grad_of(loss, logp):
    (gradient,) = torch.autograd.grad(loss, logp)
    return gradient


def test_the_clip_by_hand():
    # Ratios 1.5, 1.5, 0.5, 0.5, 1.1 with weights 2, -2, 2, -2, 1 and clip [0.8, 1.3]:
    # min(3.0, 1.3 * 2) = 2.6 clipped; min(-3, -2.6) = -3; min(1, 1.6) = 1;
    # min(-1, 0.8 * -2) = -1.6 clipped; 1.1. Sum 2.6 - 3 + 1 - 1.6 + 1.1 = 0.1.
    logp = table(*map(math.log, (1.5, 1.5, 0.5, 0.5, 1.1))).requires_grad_()
    weight = table(2.0, -2.0, 2.0, -2.0, 1.0)
    terms = policy_loss(policy_only(weight), logp, torch.zeros(1, 5), PPOClip(0.2, 0.3))
    assert terms.loss.item() == pytest.approx(-0.1, abs=1e-12)
    assert terms.is_clipped.tolist() == [[True, False, False, True, False]]
    # Where not clipped the gradient is -ratio * weight.
    assert grad_of(terms.loss, logp)[0].tolist() == pytest.approx([0, 3.0, -1.0, 0, -1.1], abs=1e-9)


def test_the_dual_clip_by_hand():
    # Weight -1, ratio 5: -5 without, max(-5, 3 * -1) = -3 with, and then no gradient.
    logp = table(math.log(5.0)).requires_grad_()
    plain = policy_loss(policy_only(table(-1.0)), logp, torch.zeros(1, 1))
    dual = policy_loss(policy_only(table(-1.0)), logp, torch.zeros(1, 1), DUAL_CLIP)
    assert plain.loss.item() == pytest.approx(5.0, abs=1e-12)
    assert dual.loss.item() == 3.0
    assert grad_of(plain.loss, logp).item() == pytest.approx(5.0, abs=1e-9)
    assert grad_of(dual.loss, logp).item() == 0.0
    assert (plain.is_clipped.item(), dual.is_clipped.item()) == (False, True)
    # Ratio 2 is below the bound.
    logp = table(math.log(2.0))
    below = policy_loss(policy_only(table(-1.0)), logp, torch.zeros(1, 1), DUAL_CLIP)
    assert below.loss.item() == pytest.approx(2.0, abs=1e-12)
    assert not below.is_clipped.any()


NUMBERS = st.floats(-3, 3, width=32)
TOKENS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=8)


@settings(max_examples=80)
@given(
    TOKENS,
    st.sampled_from([0.1, 0.2]),
    st.sampled_from([None, 0.28, 5.0]),
    st.sampled_from([None, 3.0]),
    st.booleans(),
)
def test_the_loss_agrees_with_a_plain_loop(tokens, low, high, dual, clip):
    total = 0.0
    for policy, imitation, logp, old_logp in tokens:
        ratio = math.exp(logp - old_logp)
        value = ratio * policy
        if clip:
            upper = 1 + (low if high is None else high)
            value = min(value, max(min(ratio, upper), 1 - low) * policy)
            if dual is not None and policy < 0:
                value = max(value, dual * policy)
        total -= value + imitation * logp
    policy, imitation, logp, old_logp = (table(*column) for column in zip(*tokens, strict=True))
    logp.requires_grad_()
    clipped = PPOClip(low, high, dual) if clip else NoClip()
    terms = policy_loss(TokenWeights(policy, imitation), logp, old_logp, clipped)
    assert terms.loss.item() == pytest.approx(total, rel=1e-9, abs=1e-9)
    assert (terms.policy_loss + terms.imitation_loss).item() == pytest.approx(
        total, rel=1e-9, abs=1e-9
    )
    # A clipped token is one whose gradient the clip removed, and only that.
    surrogate = policy_loss(policy_only(policy), logp, old_logp, clipped)
    free = policy_loss(policy_only(policy), logp, old_logp, NoClip())
    gradient, free_gradient = grad_of(surrogate.loss, logp), grad_of(free.loss, logp)
    assert torch.equal(terms.is_clipped, (gradient == 0) & (policy != 0))
    assert torch.equal(gradient, torch.where(terms.is_clipped, 0, free_gradient))


def test_clamped_tokens_without_weight_are_not_counted_as_clipped():
    logp = table(2.0, 2.0)
    terms = policy_loss(policy_only(table(0.0, 1.0)), logp, torch.zeros(1, 2))
    assert terms.is_clipped.tolist() == [[False, True]]
    assert terms.ratio[0, 0].item() == 1.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("surrogate", [PPOClip(0.2), NoClip(), CISPO(), GSPO()], ids=repr)
def test_tokens_without_weight_may_hold_anything(bad, surrogate):
    logp = torch.tensor([[bad, -1.0, bad]], requires_grad=True)
    weights = TokenWeights(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[0.0, 0.5, 0.0]]))
    terms = policy_loss(weights, logp, torch.tensor([[0.0, -1.0, bad]]), surrogate)
    # CISPO's value is log p = -1, not the ratio 1.
    value = -1.0 if isinstance(surrogate, CISPO) else 1.0
    assert terms.loss.item() == pytest.approx(-(value - 0.5))
    assert grad_of(terms.loss, logp).tolist() == [[0.0, -1.5, 0.0]]


def test_a_clipped_ratio_beyond_float32_has_no_gradient_instead_of_nan():
    logp = torch.tensor([[0.0, 0.0]], requires_grad=True)
    weights = policy_only(torch.tensor([[1.0, -1.0]]))
    terms = policy_loss(weights, logp, torch.tensor([[-200.0, -200.0]]), DUAL_CLIP)
    assert terms.loss.item() == pytest.approx(-1.2 + 3.0)
    assert grad_of(terms.loss, logp).tolist() == [[0.0, 0.0]]


def test_entropy_bonus_is_the_global_mean_over_sampled_tokens():
    entropy = torch.tensor([[9.0, 1.0, 2.0], [9.0, 3.0, float("nan")]], requires_grad=True)
    is_response = torch.tensor([[False, True, True], [False, True, False]])
    parts = [entropy_bonus(entropy[row : row + 1], is_response[row : row + 1], 3) for row in (0, 1)]
    assert sum(parts).item() == pytest.approx(2.0)
    third = pytest.approx(1 / 3)
    assert grad_of(sum(parts), entropy).tolist() == [[0, third, third], [0, third, 0]]
    assert entropy_bonus(entropy, torch.zeros_like(is_response), 0).item() == 0.0


def test_kl_estimate_by_hand():
    # d = ref - logp: ln 2, 0, -ln 2: 2 - 1 - ln 2, 0, 1/2 - 1 + ln 2; sum 1/2, mean of three 1/6.
    logp = table(0.0, 0.0, 0.0, 5.0).requires_grad_()
    ref_logp = table(math.log(2), 0.0, -math.log(2), float("nan"))
    is_response = torch.tensor([[True, True, True, False]])
    kl = kl_to_reference(logp, ref_logp, is_response, 3)
    assert kl.item() == pytest.approx(1 / 6, abs=1e-12)
    # d k3 / d logp = 1 - exp(d): -1, 0, 1/2, over three tokens.
    assert grad_of(kl, logp)[0].tolist() == pytest.approx([-1 / 3, 0, 1 / 6, 0], abs=1e-12)
    assert kl_to_reference(logp, ref_logp, torch.zeros_like(is_response), 0).item() == 0.0


def test_kl_estimate_is_unbiased_for_tokens_of_the_policy():
    policy = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    reference = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    expected = (policy * (policy / reference).log()).sum().item()
    # The expectation over the policy's tokens, exactly: each estimate times its probability.
    estimates = [
        kl_to_reference(
            policy.log()[None, token : token + 1],
            reference.log()[None, token : token + 1],
            torch.ones(1, 1, dtype=torch.bool),
            1,
        )
        for token in range(3)
    ]
    assert (policy * torch.stack(estimates)).sum().item() == pytest.approx(expected, abs=1e-12)
