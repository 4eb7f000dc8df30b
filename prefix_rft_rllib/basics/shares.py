"""Shares in [0, 1]: how they are checked, and how a share of a count is rounded."""

from __future__ import annotations

import math
from numbers import Integral, Real

# Products of a share and a count are rounded to this many decimals before floor or ceil, so that
# 0.29 * 100 = 28.999999999999996 counts as 29 and 0.07 * 100 = 7.000000000000001 as 7. A share
# within 5e-10 tokens of a boundary is thereby taken to be on it.
_NUM_EXACT_DECIMALS = 9


def check_fraction(name: str, value: float) -> None:
    """Check that a setting is a share of one, not a percentage.

    Args:
        name: Name of the setting as the user wrote it.
        value: The setting's value.

    Raises:
        ValueError: If `value` is not a number in [0, 1].
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"`{name}` must be a number in [0, 1], got {value!r}.")
    if 0.0 <= value <= 1.0:
        return
    message = f"`{name}` must be in [0, 1], got {value}."
    if 1.0 < value <= 100.0:
        message += f" It is a share, not a percentage: use {value / 100:g} for {value:g}%."
    raise ValueError(message)


def check_coefficient(name: str, value: float) -> None:
    """Check that a setting is a weight in a sum of losses.

    Args:
        name: Name of the setting as the user wrote it.
        value: The setting's value.

    Raises:
        ValueError: If `value` is not a finite number of at least 0.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 <= value < math.inf:
        raise ValueError(f"`{name}` must be a finite number of at least 0, got {value!r}.")


def check_flag(name: str, value: bool) -> None:
    """Check that a setting is True or False.

    Args:
        name: Name of the setting as the user wrote it.
        value: The setting's value.

    Raises:
        ValueError: If it is anything else.
    """
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be True or False, got {value!r}.")


def check_at_least(name: str, value: int, minimum: int) -> None:
    """Check that a setting is a whole number and not too small.

    Args:
        name: Name of the setting as the user wrote it.
        value: The setting's value.
        minimum: Smallest allowed value.

    Raises:
        ValueError: If `value` is not an integer or below `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise ValueError(f"`{name}` must be an integer of at least {minimum}, got {value!r}.")


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
