"""Shares in [0, 1]: how a share of a count is rounded."""

from __future__ import annotations

import math

# Products of a share and a count are rounded to this many decimals before floor or ceil, so that
# 0.29 * 100 = 28.999999999999996 counts as 29 and 0.07 * 100 = 7.000000000000001 as 7. A share
# within 5e-10 tokens of a boundary is thereby taken to be on it.
_NUM_EXACT_DECIMALS = 9


def floor_share(fraction: float, count: int) -> int:
    """Largest integer not above `fraction * count`, free of binary floating-point error.

    Args:
        fraction: A share in [0, 1].
        count: A non-negative count.

    Returns:
        The rounded product: `floor_share(0.29, 100)` is 29.
    """
    return math.floor(round(fraction * count, _NUM_EXACT_DECIMALS))


def ceil_share(fraction: float, count: int) -> int:
    """Smallest integer not below `fraction * count`, free of binary floating-point error.

    Args:
        fraction: A share in [0, 1].
        count: A non-negative count.

    Returns:
        The rounded product, at most `count`: `ceil_share(0.07, 100)` is 7.
    """
    return math.ceil(round(fraction * count, _NUM_EXACT_DECIMALS))
