"""Counter-based random draws: a draw is a pure function of its key.

There is no generator state to save or to share, so a restored run and any number of env runners
or learners see the same draws.
"""

from __future__ import annotations

import hashlib
import operator

import numpy as np
import torch
from torch import Tensor

_NUM_MANTISSA_BITS = 53


def stable_hash(*parts: int | str) -> int:
    """Hash a key to a non-negative 63-bit number, the same on every machine and Python.

    63 bits, so that the value is a valid seed for any generator and fits an int64 tensor.

    Args:
        *parts: Integers and strings. `("1", 2)`, `(1, "2")` and `("12",)` are different keys.

    Returns:
        An integer in [0, 2**63).
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, str):
            kind, payload = b"s", part.encode()
        else:
            kind, payload = b"i", str(operator.index(part)).encode()
        digest.update(b"%s%d:%s" % (kind, len(payload), payload))
    return int.from_bytes(digest.digest(), "big") >> 1


def uniform(*key: int | str) -> float:
    """A uniform draw that depends on its key only.

    Args:
        *key: Integers and strings, see `stable_hash`.

    Returns:
        A multiple of 2**-53 in [0, 1).
    """
    return (stable_hash(*key) >> (63 - _NUM_MANTISSA_BITS)) * 2.0**-_NUM_MANTISSA_BITS


def hash_uniform(row_key: Tensor, num_positions: int) -> Tensor:
    """One uniform draw per row and position, a function of the row's key and the position only.

    SplitMix64 (Steele, Lea and Flood, 2014): the row's key is the state of the generator, the
    position counts its steps. Computed by numpy, so the draws are the same on every device.

    Args:
        row_key: Key of each row. Shape (B,), int64.
        num_positions: Number of positions T. A wider T leaves the earlier draws as they are.

    Returns:
        Draws in [0, 1). Shape (B, T), float64, on the device of `row_key`.
    """
    key = row_key.cpu().numpy().astype(np.uint64)[:, None]
    step = np.arange(1, num_positions + 1, dtype=np.uint64)[None, :]
    with np.errstate(over="ignore"):
        state = _mix(key) + step * np.uint64(0x9E3779B97F4A7C15)
        bits = _mix(state) >> np.uint64(64 - _NUM_MANTISSA_BITS)
    return torch.from_numpy(bits * 2.0**-_NUM_MANTISSA_BITS).to(row_key.device)


def _mix(state: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
