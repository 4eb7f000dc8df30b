"""Factors that change over training."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.core.coefficients import Complement, WarmupCosine


@pytest.mark.parametrize(
    ("iteration", "mu"),
    [
        (0, 0.0),
        (50, 0.125),  # a quarter of the rise to 0.5
        (199, 0.4975),  # 0.5 * 199 / 200
        (200, 0.5),
        (300, 0.02 + 0.48 * (1 + math.sqrt(0.5)) / 2),  # cos(pi / 4)
        (1000 / 3, 0.38),  # a third of the fall, cos(pi / 3) = 1/2: 0.02 + 0.48 * 3 / 4
        (400, 0.26),  # half-way: 0.02 + 0.48 / 2
        (600, 0.02),
        (601, 0.02),
        (100_000, 0.02),
    ],
)
def test_chords_mu_by_hand(iteration, mu):
    assert WarmupCosine().at(iteration) == pytest.approx(mu, abs=1e-12)
    assert Complement(WarmupCosine()).at(iteration) == pytest.approx(1 - mu, abs=1e-12)


def test_without_warm_up_it_starts_at_the_peak():
    assert WarmupCosine(0.9, 0.1, 0, 10).at(0) == pytest.approx(0.9)


@given(st.integers(0, 2000))
def test_equal_ends_without_warm_up_are_a_constant(iteration):
    assert WarmupCosine(0.1, 0.1, 0).at(iteration) == pytest.approx(0.1, abs=1e-15)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 20), st.integers(1, 20), st.integers(0, 60))
def test_coefficients_of_shares_stay_shares(peak, valley, warmup, decay, iteration):
    mu = WarmupCosine(peak, valley, warmup, decay)
    assert 0 <= mu.at(iteration) <= 1 + 1e-12
    assert Complement(mu).at(iteration) + mu.at(iteration) == pytest.approx(1, abs=1e-15)
    assert mu.at(warmup + decay) == pytest.approx(valley, abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peak": 50}, r"`peak` must be in \[0, 1\], got 50"),
        ({"valley": -0.1}, "`valley` must be in"),
        (
            {"num_warmup_iterations": -1},
            "`num_warmup_iterations` must be a whole number of at least 0",
        ),
        (
            {"num_decay_iterations": 0},
            "`num_decay_iterations` must be a whole number of at least 1",
        ),
    ],
)
def test_coefficients_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        WarmupCosine(**settings)
