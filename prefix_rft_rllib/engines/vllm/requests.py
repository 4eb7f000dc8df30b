"""Requests and results of the interface in vLLM's terms."""

import math
from collections.abc import Collection
from typing import Any

from prefix_rft_rllib.engines.engine import (
    NOT_FINITE,
    FinishReason,
    Generation,
    GenerationRequest,
)


def sampling_params(request: GenerationRequest, eos_token_ids: Collection[int]) -> Any:
    """The `vllm.SamplingParams` of a request, for logits already divided by its temperature.

    Args:
        request: What to generate.
        eos_token_ids: Ids that end a sequence; vLLM must know no others.
    """
    from vllm import SamplingParams

    is_greedy = request.temperature == 0
    return SamplingParams(
        max_tokens=request.max_new_tokens,
        temperature=0.0 if is_greedy else 1.0,
        top_p=1.0 if is_greedy else request.top_p,
        seed=vllm_seed(request.seed),
        ignore_eos=True,  # the one of the model's configuration
        stop_token_ids=sorted(eos_token_ids),
        logprobs=0,  # of the chosen token only
        flat_logprobs=True,
        detokenize=False,
    )


def to_generation(completion: Any, eos_token_ids: Collection[int]) -> Generation:
    """Read a finished `vllm.CompletionOutput`.

    Args:
        completion: vLLM's result of one request made with `sampling_params`.
        eos_token_ids: Ids that end a sequence.

    Raises:
        RuntimeError: If log-probabilities are missing or not finite, or vLLM gave up.
    """
    token_ids, logps = list(completion.token_ids), list(completion.logprobs.logprobs)
    if completion.finish_reason not in ("stop", "length") or len(token_ids) != len(logps):
        raise RuntimeError(
            f"vLLM ended a sequence by {completion.finish_reason!r} after {len(token_ids)} "
            f"tokens with {len(logps)} log-probabilities."
        )
    if not all(map(math.isfinite, logps)):
        raise RuntimeError(NOT_FINITE)
    reason: FinishReason = "stop" if token_ids[-1] in eos_token_ids else "length"
    return Generation(token_ids, logps, reason)


def vllm_seed(seed: int) -> int:
    """A seed for vLLM, from 0 to 2**63 - 1.

    torch's CPU generators read the lower 32 bits only, so all 64 bits of the seed are mixed into
    those. Seeds that differ in their lower 32 bits only, such as neighbours, never collide.

    Args:
        seed: Any integer, taken modulo 2**64.
    """
    low, high = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    mixed = _mix_32(low ^ _mix_32(high))
    return (high & 0x7FFFFFFF) << 32 | mixed


def _mix_32(x: int) -> int:
    """The finalizer of MurmurHash3, a bijection of 32-bit numbers."""
    x = ((x ^ x >> 16) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ x >> 13) * 0xC2B2AE35) & 0xFFFFFFFF
    return x ^ x >> 16
