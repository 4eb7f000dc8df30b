"""Hidden states to log probabilities and entropies; all logits never exist at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from prefix_rft_rllib.basics.ranges import whole
from prefix_rft_rllib.core.logprobs import LOWEST_LOG, check_temperature

_CHUNK_ELEMENTS = 1 << 22
"""Logits per chunk by default: 16 MiB in float32, which a CPU's allocator still uses again."""
_MIN_CHUNK_TOKENS = 110
"""Tokens per chunk at least: each chunk reads the weight and adds to its gradient."""


def head_logp_and_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    entropy_grad: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log probability of targets and entropy under softmax((hidden W^T + b) / temperature).

    Works through the tokens in chunks, and again in the backward pass, which computes the logits a
    second time instead of keeping them: beside hidden states, weight and their gradients only a
    few chunks of logits exist.

    Args:
        hidden: Last hidden state of the position before each target. Shape (N, D).
        weight: Output embedding. Shape (V, D).
        targets: The tokens. Shape (N,), int64.
        bias: Bias of the head, shape (V,), or None.
        temperature: The sampling temperature, above 0.
        chunk: Tokens per chunk; by default as many as make 2**22 logits, at least 110.
        entropy_grad: True to let gradients flow through the entropy (for an entropy bonus).

    Returns:
        logp and entropy (nats), each of shape (N,), float32 (float64 for float64 states). Under
        autocast the logits are computed in its type, as a linear layer does.

    Raises:
        ValueError: If `temperature` or `chunk` is out of range.
    """
    check_temperature(temperature)
    if chunk is None:
        chunk = max(_MIN_CHUNK_TOKENS, _CHUNK_ELEMENTS // weight.shape[0])
    whole(1).check("chunk", chunk)
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    logp, entropy = _Head.apply(hidden, weight, bias, targets, temperature, chunk)
    return logp, entropy if entropy_grad else entropy.detach()


class _Head(torch.autograd.Function):
    """Chunked forward and backward of `head_logp_and_entropy`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        logp = torch.empty(targets.shape, dtype=dtype, device=hidden.device)
        entropy = torch.empty_like(logp)
        for start in range(0, len(targets), chunk):
            part = slice(start, start + chunk)
            log_probs = _log_probs(hidden[part], weight, bias, temperature)
            logp[part] = log_probs.gather(-1, targets[part, None]).squeeze(-1)
            log_probs.clamp_min_(LOWEST_LOG)
            entropy[part] = log_probs.exp().mul_(log_probs).sum(dim=-1).neg_()
        # A single chunk is kept: it is no more memory than the backward pass needs anyway.
        kept = log_probs if 0 < len(targets) <= chunk else None
        ctx.save_for_backward(hidden, weight, bias, targets, entropy, kept)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.set_materialize_grads(False)
        return logp, entropy

    @staticmethod
    def backward(
        ctx: Any, grad_logp: Tensor | None, grad_entropy: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, bias, targets, entropy, kept = ctx.saved_tensors
        if grad_logp is None and grad_entropy is None:
            return None, None, None, None, None, None
        if grad_logp is None:
            grad_logp = torch.zeros_like(entropy)
        grad_hidden = torch.empty_like(hidden)
        # float32, whatever the type of the states: it is a sum over all tokens.
        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        grad_weight = torch.zeros_like(weight, dtype=entropy.dtype) if needs_weight else None
        grad_bias = torch.zeros_like(bias, dtype=entropy.dtype) if needs_bias else None
        for start in range(0, len(targets), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            log_probs = kept
            if log_probs is None:
                log_probs = _log_probs(hidden[part], weight, bias, ctx.temperature)
            factor = grad_logp[part, None]
            if grad_entropy is not None:
                distance = log_probs.clamp_min(LOWEST_LOG).add_(entropy[part, None])
                factor = distance.mul_(grad_entropy[part, None]).add_(factor)
            # d logp / d logits = (one-hot of the target - probs) / temperature
            # d H / d logits = -probs * (log probs + H) / temperature
            grad = log_probs.exp().mul_(-factor)
            grad.scatter_add_(-1, targets[part, None], grad_logp[part, None])
            grad.div_(ctx.temperature)
            if grad_bias is not None:
                grad_bias += grad.sum(dim=0)
            grad = grad.to(hidden.dtype)
            grad_hidden[part] = grad @ weight
            if grad_weight is None:
                continue
            if grad_weight.dtype == hidden.dtype:
                grad_weight.addmm_(grad.T, hidden[part])  # without a second matrix of its size
            else:
                grad_weight += grad.T @ hidden[part]
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None


def _log_probs(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = functional.linear(hidden, weight, bias)
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    return torch.log_softmax(logits.to(dtype).div_(temperature), dim=-1)
