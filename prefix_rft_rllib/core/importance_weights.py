"""The correction for a sampler that is not quite the policy being trained."""

from __future__ import annotations

import torch
from torch import Tensor


def truncated_importance_weights(old_logp: Tensor, engine_logp: Tensor, cap: float) -> Tensor:
    """min(pi_old(learner) / pi_old(engine), cap) at sampled tokens, 1 elsewhere.

    The engine's numerics, or weights it has not received yet, make it sample from a policy slightly
    different from the one the ratio starts at. These weights correct for it, truncated so that a
    token the engine hardly ever samples cannot dominate. Prefix tokens need none: the engine never
    sampled them.

    Args:
        old_logp: The learner's log probabilities before the update. Shape (B, T).
        engine_logp: The engine's, NaN where it sampled nothing. Shape (B, T).
        cap: Largest weight, at least 1.

    Returns:
        Shape (B, T), float32, detached.
    """
    gap = (old_logp - engine_logp).detach()
    return torch.where(engine_logp.isnan(), 1.0, gap.exp().clamp(max=cap))
