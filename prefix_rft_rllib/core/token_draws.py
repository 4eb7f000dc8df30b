"""Counter-based random draws for every token of a batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prefix_rft_rllib.basics.random_draws import NUM_MANTISSA_BITS


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
        bits = _mix(state) >> np.uint64(64 - NUM_MANTISSA_BITS)
    return torch.from_numpy(bits * 2.0**-NUM_MANTISSA_BITS).to(row_key.device)


def _mix(state: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
