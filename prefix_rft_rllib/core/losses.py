"""The loss every method shares, and two optional terms on sampled tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from prefix_rft_rllib.core.surrogates import PPOClip, Surrogate
from prefix_rft_rllib.core.token_weights import TokenWeights

DEFAULT_CLIP = PPOClip(0.2)
"""The paper's clip (arXiv 2507.01679, App. A.2), and the config's unless it is set."""


class LossTerms(NamedTuple):
    """The loss of some rows and what metrics need to know about it.

    Attributes:
        loss: The scalar to minimise, a sum over these rows; differentiable.
        policy_loss: The surrogate's share of it, detached.
        imitation_loss: The imitation stream's share of it, detached.
        ratio: pi / pi_old. Shape (B, T), detached; 1 where the policy weight is 0.
        is_clipped: True where the surrogate removed the token's gradient, or bounded it. Shape
            (B, T), bool; never True where the policy weight is 0.
    """

    loss: Tensor
    policy_loss: Tensor
    imitation_loss: Tensor
    ratio: Tensor
    is_clipped: Tensor


def policy_loss(
    weights: TokenWeights,
    logp: Tensor,
    old_logp: Tensor,
    surrogate: Surrogate = DEFAULT_CLIP,
) -> LossTerms:
    """-(factor(ratio) * policy + imitation * logp).sum(); scales are in the weights.

    A sum, not a mean: the losses of micro-batches and learners add up to the loss of the minibatch,
    whatever the padding.

    Args:
        weights: The two streams, detached. Each of shape (B, T).
        logp: Log probabilities of the tokens under the policy being trained. Shape (B, T). Any
            value, NaN too, where both weights are 0.
        old_logp: The same under the policy that sampled. Shape (B, T). Any value where the policy
            weight is 0.
        surrogate: What policy weights are multiplied by, with its bounds.

    Returns:
        Loss and details. At ratio 1 the gradient with respect to `logp` is minus the sum of the
        two streams.
    """
    zero = torch.zeros_like(logp)
    # Unweighted tokens must not bring NaN or infinity into the sum.
    has_weight = weights.policy != 0
    own, old = torch.where(has_weight, logp, zero), torch.where(has_weight, old_logp, zero)
    factor = surrogate.factor(weights.policy, own, old)
    policy = (factor.value * weights.policy).sum()
    imitation = (weights.imitation * torch.where(weights.imitation != 0, logp, zero)).sum()
    return LossTerms(
        loss=-(policy + imitation),
        policy_loss=-policy.detach(),
        imitation_loss=-imitation.detach(),
        ratio=(own - old).detach().exp(),
        is_clipped=factor.is_clipped,
    )


def entropy_bonus(entropy: Tensor, is_response: Tensor, global_count: int) -> Tensor:
    """Mean entropy of the sampled tokens of a global minibatch, in nats.

    Subtract it, times its coefficient, from the loss. Prefix tokens do not take part: the policy
    did not choose them.

    Args:
        entropy: Entropy of the policy being trained, with gradient. Shape (B, T).
        is_response: True at sampled tokens. Shape (B, T), bool.
        global_count: Sampled tokens in the global minibatch, so that the values of micro-batches
            and learners add up to the mean.

    Returns:
        These rows' share of the mean; a differentiable scalar, 0 without sampled tokens.
    """
    return torch.where(is_response, entropy, 0.0).sum() / max(global_count, 1)


def kl_to_reference(
    logp: Tensor, ref_logp: Tensor, is_response: Tensor, global_count: int
) -> Tensor:
    """Mean estimated KL divergence to a reference model on sampled tokens, in nats.

    The estimator k3 = exp(d) - 1 - d with d = ref_logp - logp: never negative, 0 where the models
    agree, and unbiased for tokens sampled from the policy (Schulman, "Approximating KL
    Divergence", 2020; GRPO, arXiv 2402.03300, eq. 4). Add it, times its coefficient, to the loss.

    Args:
        logp: Log probabilities under the policy being trained, with gradient. Shape (B, T).
        ref_logp: The same under the reference model. Shape (B, T).
        is_response: True at sampled tokens. Shape (B, T), bool.
        global_count: Sampled tokens in the global minibatch.

    Returns:
        These rows' share of the mean; a differentiable scalar, 0 without sampled tokens.
    """
    difference = torch.where(is_response, ref_logp.detach() - logp, 0.0)
    return (torch.expm1(difference) - difference).sum() / max(global_count, 1)
