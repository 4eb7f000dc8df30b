"""What a token is worth: factors of the policy's own probability, and schedules."""

import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.core.coefficients import Complement, WarmupCosine
from prefix_rft_rllib.core.token_values import (
    Constant,
    EntropyScaled,
    PolicyShaped,
    Probability,
    Scheduled,
    TrajectoryAdvantage,
    Uncertainty,
)
from tests.token_batches import make_columns, widen

COLUMNS = make_columns(["xrr", "xDD"], [0.5, -2.0])
MU = WarmupCosine(0.5, 0.1, 10, 20)


def factor(value, *probabilities):
    logp = torch.tensor([probabilities], dtype=torch.float64).log()
    return value.policy_factor(logp)[0].tolist()


def test_luffys_factor_by_hand():
    # 0.1 p / (p + 0.1)^2: p = 0.1: 0.01 / 0.04; p = 0.4: 0.04 / 0.25; p = 1: 0.1 / 1.21.
    shaped = factor(PolicyShaped(0.1), 0.1, 0.4, 1.0)
    assert shaped == pytest.approx([0.25, 0.16, 0.1 / 1.21], rel=1e-12)
    assert PolicyShaped(0.1).base(COLUMNS, 3).tolist() == [0.5, -2.0]


def test_chords_factor_by_hand():
    assert factor(Uncertainty(), 0.5, 0.1, 0.9, 1.0) == pytest.approx([0.25, 0.09, 0.09, 0.0])
    assert Uncertainty().base(COLUMNS, 3).tolist() == [1.0, 1.0]


@given(st.floats(1e-6, 1.0), st.floats(0.01, 5.0))
def test_luffys_factor_is_largest_where_p_is_gamma(p, gamma):
    at_p, at_gamma = factor(PolicyShaped(gamma), p, gamma)
    assert at_gamma == pytest.approx(0.25, rel=1e-9)
    assert 0 < at_p <= 0.25 + 1e-9


@given(st.floats(1e-6, 1.0), st.floats(0.01, 5.0))
def test_luffys_factor_is_the_slope_of_its_objective(p, gamma):
    def objective(log_p):
        return math.exp(log_p) / (math.exp(log_p) + gamma)

    log_p, step = math.log(p), 1e-5
    slope = (objective(log_p + step) - objective(log_p - step)) / (2 * step)
    assert factor(PolicyShaped(gamma), p)[0] == pytest.approx(slope, rel=1e-6, abs=1e-10)


def test_chords_factor_keeps_its_digits_where_p_is_near_1():
    # In float32 1 - exp(-1e-6) has one digit left.
    logp = torch.tensor([[-1e-6]])
    assert Uncertainty().policy_factor(logp).item() == pytest.approx(1e-6, rel=1e-5)
    assert logp.exp().item() * (1 - logp.exp().item()) != pytest.approx(1e-6, rel=1e-2)


def test_the_capped_probability_by_hand():
    # DFT: p. TrSFT with 0.1: p / 0.1 up to p = 0.1, then 1.
    assert factor(Probability(), 0.5, 0.01, 1.0) == pytest.approx([0.5, 0.01, 1.0])
    assert factor(Probability(0.1), 0.5, 0.01, 0.1, 0.05) == pytest.approx([1.0, 0.1, 1.0, 0.5])
    assert Probability().base(COLUMNS, 3).tolist() == [1.0, 1.0]


def test_the_entropy_of_a_row_by_hand():
    # Row 1: sampled tokens of 1 and 2 nats: mean 1.5; row 2: 0 and 0.5: 0.25. The 9 of a prompt and
    # the padding do not count.
    columns = make_columns(["xrr", "xDD"], [0.5, -2.0], [[9.0, 1.0, 2.0], [9.0, 0.0, 0.5]])
    for layout in (columns, widen(columns, 2)):
        plain = EntropyScaled(Constant(0.5)).base(layout, 0)
        assert plain.tolist() == pytest.approx([0.5 * math.exp(-1.5), 0.5 * math.exp(-0.25)])
        up = EntropyScaled(TrajectoryAdvantage(), 1.0).base(layout, 0)
        assert up.tolist() == pytest.approx([0.5 * math.exp(1.5), -2 * math.exp(0.25)])
    assert EntropyScaled(Constant()).policy_factor(COLUMNS.old_logp) is None
    inner = EntropyScaled(Probability()).policy_factor(COLUMNS.old_logp)
    assert torch.equal(inner, COLUMNS.old_logp.exp())


@pytest.mark.parametrize("power", [float("nan"), float("inf"), "1", None, True])
def test_a_power_that_is_no_number_is_refused(power):
    with pytest.raises(ValueError, match="`power` must be"):
        EntropyScaled(Constant(), power)


@pytest.mark.parametrize("threshold", [0.0, -0.1, 20, "1", float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(ValueError, match="`threshold` must be"):
        Probability(threshold)


def test_a_value_with_a_factor_of_another_name_is_refused():
    # It would never be called, and the value would train without it.
    with pytest.raises(TypeError, match=r"Halved\.shape would never be called: .*policy_factor"):

        class Halved(TrajectoryAdvantage):
            def shape(self, logp):
                return 0.5


@pytest.mark.parametrize("value", [PolicyShaped(), Uncertainty(), Probability(), Probability(0.1)])
def test_factors_of_impossible_tokens_are_zero(value):
    assert value.policy_factor(torch.tensor([[-float("inf"), -200.0]])).tolist() == [[0.0, 0.0]]


def test_a_schedule_multiplies_the_value_and_keeps_its_factor():
    # Iteration 5: half of the rise to 0.5. Iteration 20: half of the fall, 0.1 + 0.4 / 2.
    for iteration, mu in ((5, 0.25), (20, 0.3), (30, 0.1)):
        up = Scheduled(TrajectoryAdvantage(), MU).base(COLUMNS, iteration)
        assert up.tolist() == pytest.approx([0.5 * mu, -2 * mu], rel=1e-6)
        down = Scheduled(Constant(3.0), Complement(MU)).base(COLUMNS, iteration)
        assert down.tolist() == pytest.approx([3 * (1 - mu)] * 2, rel=1e-6)
    assert Scheduled(Constant(), MU).policy_factor(COLUMNS.old_logp) is None
    scheduled = Scheduled(Uncertainty(), MU).policy_factor(COLUMNS.old_logp)
    assert torch.equal(scheduled, Uncertainty().policy_factor(COLUMNS.old_logp))


@pytest.mark.parametrize("gamma", [0.0, -0.1, float("nan")])
def test_a_gamma_that_makes_no_sense_is_refused(gamma):
    with pytest.raises(
        ValueError, match=r"`gamma` must be a finite number above 0.*LUFFY uses 0\.1"
    ):
        PolicyShaped(gamma)


def test_values_compare_pickle_and_print():
    around = (Scheduled(Uncertainty(), MU), EntropyScaled(Probability(0.1), 1.0))
    for value in (PolicyShaped(0.2), Uncertainty(), Constant(2.0), *around):
        assert pickle.loads(pickle.dumps(value)) == value
        assert hash(value) == hash(pickle.loads(pickle.dumps(value)))
    assert repr(PolicyShaped(0.2)) == "PolicyShaped(gamma=0.2)"
    assert PolicyShaped(0.2) != PolicyShaped(0.1)
