"""Checks of the numbers that the statistics of an evaluation are given."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from prefix_rft_rllib.basics.ranges import whole


def finite(name: str, values: ArrayLike) -> np.ndarray:
    """Return scores as an array.

    Args:
        name: The argument's name, for the error.
        values: Numbers or True and False. Shape (entries,).

    Returns:
        The same, float64.

    Raises:
        ValueError: If there is no entry, more than one dimension, or an entry is no finite number;
            a text is none.
    """
    given = _as_array(values)
    if given.dtype.kind not in "biuf":
        raise ValueError(f"`{name}` must hold plain numbers, got {values!r:.80}.")
    numbers = given.astype(np.float64)
    if numbers.ndim != 1 or numbers.size == 0:
        raise ValueError(
            f"`{name}` must have one dimension and at least one entry, got shape {numbers.shape}."
        )
    if bad := np.flatnonzero(~np.isfinite(numbers)).tolist():
        raise ValueError(
            f"`{name}` must hold finite numbers, but entry {bad[0]} is {numbers[bad[0]]} "
            f"({len(bad)} such entries)."
        )
    return numbers


def _as_array(values: ArrayLike) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:  # rows of different lengths
        return np.asarray(None)


def whole_numbers(name: str, values: ArrayLike) -> np.ndarray:
    """Return counts as an int64 array; a single number has one entry. Errors as of `finite`."""
    numbers = finite(name, np.atleast_1d(_as_array(values)))
    if bad := np.flatnonzero(numbers != np.round(numbers)).tolist():
        raise ValueError(
            f"`{name}` must hold whole numbers, but entry {bad[0]} is {numbers[bad[0]]}."
        )
    return numbers.astype(np.int64)


def check_k(k: int, num_samples: int, what: str) -> None:
    """Check that k is in [1, num_samples]; `what` says whose attempts these are."""
    allowed = whole(1, num_samples)
    allowed.advising(f"At most {what}: take a smaller k, or sample more attempts.").check("k", k)


def check_rows(name: str, rows: Sequence[Sequence[object]]) -> int:
    """Check that all problems have equally many attempts, at least one; return how many."""
    lengths = [len(row) for row in rows]
    if not lengths or 0 in lengths:
        raise ValueError(
            f"`{name}` must hold at least one problem and one attempt at each, got {len(lengths)} "
            f"problems{f', number {lengths.index(0)} without attempts' if lengths else ''}."
        )
    other = next((i for i, length in enumerate(lengths) if length != lengths[0]), None)
    if other is not None:
        raise ValueError(
            f"`{name}` has {lengths[other]} attempts at problem {other}, but {lengths[0]} at "
            "problem 0. Every problem needs the same number."
        )
    return lengths[0]


def check_zero_or_one(name: str, numbers: np.ndarray) -> None:
    """Check that every entry is 0 or 1."""
    if bad := np.flatnonzero((numbers != 0.0) & (numbers != 1.0)).tolist():
        raise ValueError(
            f"`{name}` must hold 0 and 1 only, but entry {bad[0]} is {numbers[bad[0]]}. Scores "
            "between are averaged by `avg_at_k` and compared by `compare_averages`."
        )


def checked_bounds(bounds: tuple[float, float], **scores: np.ndarray) -> tuple[float, float]:
    """Check bounds, and by their names the scores that must lie in them; return the bounds."""
    least, largest = map(float, bounds)
    if not (math.isfinite(least) and math.isfinite(largest) and least < largest):
        raise ValueError(f"`bounds` must be two finite numbers, the smaller first, got {bounds!r}.")
    for name, numbers in scores.items():
        if bad := np.flatnonzero((numbers < least) | (numbers > largest)).tolist():
            raise ValueError(
                f"`{name}` must lie in `bounds` [{least:g}, {largest:g}], but entry {bad[0]} is "
                f"{numbers[bad[0]]}. For other values than shares give their `bounds`."
            )
    return least, largest


def check_num_resamples(num_resamples: int) -> None:
    """Check that there are enough resamples for the tails of a distribution."""
    allowed = whole(100).advising("Fewer say nothing about the tails of a distribution.")
    allowed.check("num_resamples", num_resamples)
