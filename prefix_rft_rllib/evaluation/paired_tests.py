"""Two models on the same problems: is one better?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from prefix_rft_rllib.evaluation.score_checks import (
    check_num_resamples,
    check_zero_or_one,
    checked_bounds,
    finite,
)
from prefix_rft_rllib.evaluation.statistics import (
    BATCH_NUMBERS,
    NUM_RESAMPLES,
    Estimate,
    mean_with_interval,
)


@dataclass(frozen=True)
class PairedTest:
    """Two models on the same problems.

    Attributes:
        difference: Mean of ours minus theirs, with its interval over problems.
        p_value: Probability, in (0, 1], of a difference at least this large, of either sign, if
            the two models were equally good at every problem.
        num_better: Problems where ours scores higher.
        num_worse: Problems where ours scores lower.
    """

    difference: Estimate
    p_value: float
    num_better: int
    num_worse: int


def compare_greedy(
    ours: Mapping[str, float], theirs: Mapping[str, float], *, seed: int = 0
) -> PairedTest:
    """Compare one attempt a problem: McNemar's exact test.

    Of the problems that one model alone solves, each should be either's with probability 1/2 if
    the models are equally good; the number is compared with that binomial distribution.

    Args:
        ours: By problem id, 1 (or True) if our model's attempt is right, else 0.
        theirs: The same of the other model, for the same problems.
        seed: Of the interval of the difference.

    Returns:
        The difference and its p-value.

    Raises:
        ValueError: If the problems differ, there is none, or a value is neither 0 nor 1.
    """
    first, second = _paired(ours, theirs)
    for name, scores in (("ours", first), ("theirs", second)):
        check_zero_or_one(name, scores)
    better, worse = int((first > second).sum()), int((first < second).sum())
    p_value = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    difference = mean_with_interval(first - second, bounds=(-1.0, 1.0), seed=seed)
    return PairedTest(difference, float(p_value), better, worse)


def compare_averages(
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> PairedTest:
    """Compare averages over attempts, such as avg@k or pass@k: sign-flip permutation test.

    If the models are equally good at every problem, each problem's difference could as well have
    the other sign. All choices of signs are tried where there are at most `num_resamples` of them,
    else that many random ones; the smallest p-value is then `2 / (num_resamples + 1)`.

    Args:
        ours: By problem id, our model's average.
        theirs: The same of the other model, for the same problems.
        bounds: Smallest and largest possible average.
        num_resamples: Random choices of signs, and resamples of the interval.
        seed: Of both.

    Returns:
        The difference and its p-value.

    Raises:
        ValueError: If the problems differ, there is none, or a value is not finite or outside the
            bounds.
    """
    first, second = _paired(ours, theirs)
    least, largest = checked_bounds(bounds, ours=first, theirs=second)
    check_num_resamples(num_resamples)
    scale = largest - least
    # A unit of the last digit is no difference, neither between averages nor between sums of them.
    shares = np.sort(np.round((first - second) / scale, 12))
    changed = shares[shares != 0.0]  # a zero has no sign to flip
    p_value = 1.0  # of a single difference either sign is as large
    if changed.size > 1:
        p_value = stats.permutation_test(
            (changed,),
            lambda signed, axis: np.round(signed.sum(axis=axis), 9),
            permutation_type="samples",
            vectorized=True,
            n_resamples=num_resamples,
            batch=max(1, BATCH_NUMBERS // changed.size),
            rng=np.random.default_rng(seed),
        ).pvalue
    difference = mean_with_interval(
        shares * scale, bounds=(-scale, scale), num_resamples=num_resamples, seed=seed
    )
    return PairedTest(difference, float(p_value), int((shares > 0).sum()), int((shares < 0).sum()))


def _paired(
    ours: Mapping[str, float], theirs: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Bring the scores of the same problems into one order, our own."""
    for name, rest, other in (
        ("ours", set(ours) - set(theirs), "theirs"),
        ("theirs", set(theirs) - set(ours), "ours"),
    ):
        if rest:
            raise ValueError(
                f"{len(rest)} problems are in `{name}` and not in `{other}`, such as "
                f"{sorted(map(str, rest))[:3]}. A paired comparison needs the same problems on "
                "both sides: evaluate both models on one file, or leave these problems out."
            )
    return finite("ours", list(ours.values())), finite("theirs", [theirs[i] for i in ours])
