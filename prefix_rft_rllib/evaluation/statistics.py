"""The statistics of an evaluation: attempts at problems in, estimates with intervals out.

Every function takes plain numbers and gives plain numbers; nothing here knows models or files.
`pass_at_k`, `avg_at_k` and `maj_at_k` give one value a problem. `mean_with_interval` turns such
values into a mean with its interval: problems are what is drawn at random, so they are what is
resampled. Attempts at one problem are alike, and an interval that treats them as independent is too
narrow. Two models are compared by `paired_tests`.
"""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from prefix_rft_rllib.evaluation.score_checks import (
    check_k,
    check_num_resamples,
    check_rows,
    check_zero_or_one,
    checked_bounds,
    finite,
    whole_numbers,
)

CONFIDENCE = 0.95
NUM_RESAMPLES = 9999
BATCH_NUMBERS = 2_000_000
"""Numbers that resampling holds in memory at a time."""


@dataclass(frozen=True)
class Estimate:
    """A mean over problems with its interval.

    Attributes:
        mean: Mean of the problems' values.
        low: Lower end of the interval.
        high: Upper end.
        num_problems: Problems it was estimated from.
    """

    mean: float
    low: float
    high: float
    num_problems: int


@dataclass(frozen=True)
class SeedSpread:
    """Mean and deviation over runs that differ in the inference seed.

    Attributes:
        mean: Mean over seeds.
        std: Standard deviation over seeds, with `num_seeds - 1` in the denominator.
        num_seeds: Number of seeds.
    """

    mean: float
    std: float
    num_seeds: int


def pass_at_k(num_correct: ArrayLike, num_samples: ArrayLike, k: int) -> np.ndarray:
    """Estimate, for each problem, the probability that one of k attempts is right.

    Of all sets of k among the n attempts the share with a right one, `1 - C(n-c, k) / C(n, k)`:
    unbiased for n >= k (arXiv 2107.03374, Eq. 1). It is computed in whole numbers and rounded once,
    so that it is exact to the last bit for any k.

    Args:
        num_correct: Right attempts c of each problem. Shape (problems,), integers in [0, n].
        num_samples: Attempts n of each problem, or one number for all.
        k: Attempts that are allowed, at least 1 and at most n.

    Returns:
        Values in [0, 1]. Shape (problems,), float64.

    Raises:
        ValueError: If there is no problem, or a number is outside its range or not whole.
    """
    correct = whole_numbers("num_correct", num_correct)
    samples = whole_numbers("num_samples", num_samples)
    if samples.size != 1 and samples.shape != correct.shape:
        raise ValueError(
            f"`num_samples` has {samples.size} entries, `num_correct` {correct.size}. Give one for "
            "each problem, or one number for all."
        )
    samples = np.broadcast_to(samples, correct.shape)
    fewest = int(samples.min())
    check_k(k, fewest, f"the {fewest} attempts of problem {int(samples.argmin())}")
    if bad := np.flatnonzero((correct < 0) | (correct > samples)).tolist():
        raise ValueError(
            f"`num_correct` of problem {bad[0]} is {correct[bad[0]]}, must be in "
            f"[0, {samples[bad[0]]}], the number of its attempts."
        )
    pairs = zip(samples.tolist(), correct.tolist(), strict=True)
    return np.array([_pass_at_k(n, c, int(k)) for n, c in pairs])


@functools.lru_cache(maxsize=10_000)
def _pass_at_k(n: int, c: int, k: int) -> float:
    sets = math.comb(n, k)
    return (sets - math.comb(n - c, k)) / sets  # Python rounds a quotient of integers once


def avg_at_k(scores: Sequence[Sequence[float]]) -> np.ndarray:
    """Return each problem's mean score over its k attempts.

    Args:
        scores: Rewards, or right (1) and wrong (0). Shape (problems, k).

    Returns:
        The means. Shape (problems,), float64.

    Raises:
        ValueError: If there is no problem or no attempt, the problems have different numbers of
            attempts, or a score is no finite number.
    """
    check_rows("scores", scores)
    flat = finite("scores", [score for row in scores for score in row])
    return flat.reshape(len(scores), -1).mean(axis=1)


def maj_at_k(
    answers: Sequence[Sequence[Hashable | None]], is_correct: Sequence[Sequence[bool]], k: int
) -> np.ndarray:
    """Estimate, for each problem, the probability that the majority of k attempts is right.

    The attempts are cut into blocks of k; each block votes, and a problem's value is the mean over
    its blocks. An attempt without an answer does not vote, and a block without a vote is wrong.
    Among answers with equally many votes one is drawn: the block counts as the share of them that
    is right. Votes for one answer count as right by the share that the verifier accepted, which is
    0 or 1 unless it timed out on some.

    Args:
        answers: What each attempt answered, equal answers as equal values; None: no answer.
            Shape (problems, n).
        is_correct: Whether the verifier accepted each attempt. Shape (problems, n).
        k: Attempts that vote; n must be a multiple of it.

    Returns:
        Values in [0, 1]. Shape (problems,), float64.

    Raises:
        ValueError: If there is no problem or no attempt, the shapes differ, or n is no multiple
            of k.
    """
    n = check_rows("answers", answers)
    if [len(row) for row in is_correct] != [n] * len(answers):
        raise ValueError(
            f"`is_correct` must have the shape of `answers`, {len(answers)} problems with {n} "
            "attempts each."
        )
    check_zero_or_one("is_correct", finite("is_correct", [x for row in is_correct for x in row]))
    check_k(k, n, f"the {n} attempts of each problem")
    if n % k:
        raise ValueError(
            f"`k` is {k}, but must divide the {n} attempts of each problem, so that none is left "
            f"out. Try one of {[d for d in range(1, n + 1) if n % d == 0]}."
        )
    values = [
        [_majority(row[i : i + k], right[i : i + k]) for i in range(0, n, k)]
        for row, right in zip(answers, is_correct, strict=True)
    ]
    return np.array(values).mean(axis=1)


def _majority(answers: Sequence[Hashable | None], is_correct: Sequence[bool]) -> float:
    accepted = collections.defaultdict(list)
    for answer, correct in zip(answers, is_correct, strict=True):
        if answer is not None:
            accepted[answer].append(bool(correct))
    most = max(map(len, accepted.values()), default=0)
    winners = [sum(votes) / most for votes in accepted.values() if len(votes) == most]
    return sum(winners) / len(winners) if winners else 0.0


def mean_with_interval(
    values: ArrayLike,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Return the mean over problems with its 95% bootstrap interval (BCa).

    Where all values are the same, resampling would give an interval of width zero. It then reaches
    as far as problems of another value may have been missed: with n problems a share of up to
    `1 - 0.025 ** (1 / n)` of them, each with the smallest or the largest possible value. Of 0 or 1
    this is Clopper and Pearson's interval. With fewer than about 20 problems a bootstrap interval
    is too narrow.

    Args:
        values: One value a problem. Shape (problems,).
        bounds: Smallest and largest possible value.
        num_resamples: Resamples of the problems.
        seed: Of the resampling: the same values, in any order, and seed give the same interval.

    Returns:
        The mean and its interval, inside the bounds.

    Raises:
        ValueError: If there is no value, one is not finite, or one lies outside the bounds.
    """
    numbers = finite("values", values)
    least, largest = checked_bounds(bounds, values=numbers)
    check_num_resamples(num_resamples)
    numbers = np.sort(numbers)  # the order in which problems were evaluated changes nothing
    mean, n = float(numbers.mean()), len(numbers)
    if np.ptp(numbers) <= 1e-12 * (largest - least):
        missed = 1.0 - ((1.0 - CONFIDENCE) / 2) ** (1.0 / n)
        low, high = mean - missed * (mean - least), mean + missed * (largest - mean)
    else:
        low, high = stats.bootstrap(
            (numbers,),
            np.mean,
            confidence_level=CONFIDENCE,
            n_resamples=num_resamples,
            batch=max(1, BATCH_NUMBERS // n),
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Estimate(mean, max(least, float(low)), min(largest, float(high)), n)


def spread_over_seeds(scores: ArrayLike) -> SeedSpread:
    """Return mean and deviation of one benchmark's score over inference seeds.

    Args:
        scores: One score a seed, such as the mean over problems. Shape (seeds,).

    Returns:
        Mean and standard deviation.

    Raises:
        ValueError: If there are fewer than two scores, or one is not finite.
    """
    numbers = finite("scores", scores)
    if len(numbers) < 2:
        raise ValueError("`scores` holds one seed; a deviation over seeds needs two or more.")
    return SeedSpread(float(numbers.mean()), float(numbers.std(ddof=1)), len(numbers))
