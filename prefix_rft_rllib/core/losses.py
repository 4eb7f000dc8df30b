"""The loss every method shares, and two optional terms on sampled tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from prefix_rft_rllib.core.token_weights import TokenWeights


class LossTerms(NamedTuple):
    """The loss of some rows and what metrics need to know about it.

    Attributes:
        loss: The scalar to minimise, a sum over these rows; differentiable.
        policy_loss: The surrogate's share of it, detached.
        imitation_loss: The imitation stream's share of it, detached.
        ratio: pi / pi_old. Shape (B, T), detached; 1 where the policy weight is 0.
        is_clipped: True where the clip removed the token's gradient. Shape (B, T), bool; never
            True where the policy weight is 0.
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
    *,
    clip_param: float = 0.2,
    clip_param_high: float | None = None,
    dual_clip: float | None = None,
    clip: bool = True,
) -> LossTerms:
    """-(clipped_surrogate(ratio, policy) + imitation * logp).sum(); scales are in the weights.

    The surrogate of a token with policy weight w is min(ratio * w, bounded ratio * w) with the
    ratio bounded to [1 - clip_param, 1 + clip_param_high] (PPO, arXiv 1707.06347, eq. 7), and for
    w < 0 at least dual_clip * w if that is set (arXiv 1912.09729, eq. 5). A sum, not a mean: the
    losses of micro-batches and learners add up to the loss of the minibatch, whatever the padding.

    Args:
        weights: The two streams, detached. Each of shape (B, T).
        logp: Log probabilities of the tokens under the policy being trained. Shape (B, T). Any
            value, NaN too, where both weights are 0.
        old_logp: The same under the policy that sampled. Shape (B, T). Any value where the policy
            weight is 0.
        clip_param: Lower clip distance, in (0, 1).
        clip_param_high: Upper clip distance, positive; `clip_param` if not given.
        dual_clip: Bound of the ratio for negative weights, above 1; None for no bound.
        clip: False for the plain surrogate ratio * w, without any of the three bounds.

    Returns:
        Loss and details. At ratio 1 the gradient with respect to `logp` is minus the sum of the
        two streams.

    Raises:
        ValueError: If a bound is out of range.
    """
    high = clip_param if clip_param_high is None else clip_param_high
    _check_clip(clip_param, high, dual_clip)
    weight = weights.policy
    zero = torch.zeros_like(logp)
    # `where` on both sides of exp: unweighted tokens must not bring NaN or infinity into the sum.
    log_ratio = torch.where(weight != 0, logp - old_logp, zero)
    bound = _active_bound(weight, log_ratio.detach().exp(), clip_param, high, dual_clip)
    is_clipped = ~bound.isnan() if clip else torch.zeros_like(bound, dtype=torch.bool)
    # A clipped token is a constant; keeping exp away from it avoids 0 * inf in its gradient.
    ratio = torch.where(is_clipped, bound, torch.where(is_clipped, zero, log_ratio).exp())
    surrogate = (ratio * weight).sum()
    imitation = (weights.imitation * torch.where(weights.imitation != 0, logp, zero)).sum()
    return LossTerms(
        loss=-(surrogate + imitation),
        policy_loss=-surrogate.detach(),
        imitation_loss=-imitation.detach(),
        ratio=log_ratio.detach().exp(),
        is_clipped=is_clipped,
    )


def _active_bound(
    weight: Tensor, ratio: Tensor, low: float, high: float, dual_clip: float | None
) -> Tensor:
    """The bound that replaces the ratio, or NaN where the ratio itself counts. Shape (B, T)."""
    bound = torch.full_like(ratio, torch.nan)
    bound = torch.where((weight > 0) & (ratio > 1 + high), 1 + high, bound)
    bound = torch.where((weight < 0) & (ratio < 1 - low), 1 - low, bound)
    if dual_clip is not None:
        bound = torch.where((weight < 0) & (ratio > dual_clip), dual_clip, bound)
    return bound


def _check_clip(low: float, high: float, dual_clip: float | None) -> None:
    if not 0.0 < low < 1.0:
        raise ValueError(
            f"`clip_param` must be in (0, 1), got {low}. It is the distance of the ratio from 1, "
            "such as 0.2; for no clip at all a method sets `clip=False`."
        )
    if not high > 0.0:
        raise ValueError(f"`clip_param_high` must be above 0, got {high}. Try 0.2 or 0.28.")
    if dual_clip is not None and not dual_clip > 1.0:
        raise ValueError(
            f"`dual_clip` must be above 1, got {dual_clip}. It bounds the ratio of tokens with "
            "negative weight; 3 is usual, None switches it off."
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
