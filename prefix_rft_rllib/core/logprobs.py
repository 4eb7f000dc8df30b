"""Logits to log probabilities and entropies, without float32 copies of all logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prefix_rft_rllib.basics.ranges import real, whole

_TEMPERATURE = real(above=0).advising(
    "Greedy sampling has no entropy; log probabilities are taken at the temperature of training."
)
_MAX_CHUNK_ELEMENTS = 1 << 24
"""Logits per chunk by default: 64 MiB in float32."""


def logp_and_entropy(
    logits: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    chunk: int | None = None,
    entropy_grad: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log probability of the targets and entropy under softmax(logits / temperature).

    Works through the positions in chunks, in the backward pass too (which computes the softmax
    again), so that beside the logits and their gradient, both of the logits' own type, only one
    chunk exists in float32.

    Args:
        logits: Scores at each position. Shape (B, T, V), any floating type.
        targets: The token that each position's logits predict, see `next_token_targets`. Shape
            (B, T), int64.
        temperature: The sampling temperature, above 0.
        chunk: Positions per chunk; by default as many as make 2**24 logits.
        entropy_grad: True to let gradients flow through the entropy (for an entropy bonus).

    Returns:
        logp and entropy (nats), each of shape (B, T), float32 (float64 for float64 logits).
        Gradients flow through logp, and through the entropy only on request.

    Raises:
        ValueError: If `temperature` or `chunk` is out of range.
    """
    check_temperature(temperature)
    if chunk is None:
        num_rows, _, num_tokens = logits.shape
        chunk = max(1, _MAX_CHUNK_ELEMENTS // max(1, num_rows * num_tokens))
    whole(1).check("chunk", chunk)
    logp, entropy = _LogpAndEntropy.apply(logits, targets, temperature, chunk)
    return logp, entropy if entropy_grad else entropy.detach()


def check_temperature(temperature: float) -> None:
    """Check the temperature of log probabilities.

    Raises:
        ValueError: If it is not above 0.
    """
    _TEMPERATURE.check("temperature", temperature)


class _LogpAndEntropy(torch.autograd.Function):
    """Chunked forward and backward of `logp_and_entropy`."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logp = torch.empty(targets.shape, dtype=dtype, device=logits.device)
        entropy = torch.empty_like(logp)
        for start in range(0, targets.shape[1], chunk):
            part = slice(start, start + chunk)
            log_probs = _log_softmax(logits[:, part], temperature, dtype)
            logp[:, part] = log_probs.gather(-1, targets[:, part, None]).squeeze(-1)
            entropy[:, part] = _entropy(log_probs)
        ctx.save_for_backward(logits, targets, entropy)
        ctx.temperature, ctx.chunk, ctx.dtype = temperature, chunk, dtype
        ctx.set_materialize_grads(False)
        return logp, entropy

    @staticmethod
    def backward(
        ctx: Any, grad_logp: Tensor | None, grad_entropy: Tensor | None
    ) -> tuple[Tensor | None, None, None, None]:
        logits, targets, entropy = ctx.saved_tensors
        if grad_logp is None and grad_entropy is None:
            return None, None, None, None
        grad = torch.empty_like(logits)
        for start in range(0, targets.shape[1], ctx.chunk):
            part = slice(start, start + ctx.chunk)
            log_probs = _log_softmax(logits[:, part], ctx.temperature, ctx.dtype)
            probs = log_probs.exp()
            part_grad = torch.zeros_like(probs)
            if grad_logp is not None:
                # d logp / d logits = (one-hot of the target - probs) / temperature
                part_grad -= grad_logp[:, part, None] * probs
                part_grad.scatter_add_(-1, targets[:, part, None], grad_logp[:, part, None])
            if grad_entropy is not None:
                # d H / d logits = -probs * (log probs + H) / temperature
                inner = probs * log_probs.clamp_min(LOWEST_LOG) + probs * entropy[:, part, None]
                part_grad -= grad_entropy[:, part, None] * inner
            grad[:, part] = part_grad / ctx.temperature
        return grad, None, None, None


LOWEST_LOG = -1e30
"""Stands in for log 0, so that a forbidden token (logit -inf) adds 0 to the entropy, not NaN."""


def _log_softmax(logits: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    return torch.log_softmax(logits.to(dtype) / temperature, dim=-1)


def _entropy(log_probs: Tensor) -> Tensor:
    return -(log_probs.exp() * log_probs.clamp_min(LOWEST_LOG)).sum(dim=-1)
