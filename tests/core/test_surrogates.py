"""The trust regions: on paper, by plain loops, and what no surrogate may do."""

import dataclasses
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib import methods
from prefix_rft_rllib.core.losses import DEFAULT_CLIP, policy_loss
from prefix_rft_rllib.core.surrogates import CISPO, GSPO, NoClip, PPOClip, Surrogate
from prefix_rft_rllib.core.token_weights import TokenWeights
from prefix_rft_rllib.methods import METHODS
from tests.core.objective_cases import loss_and_gradient, moved_logp
from tests.token_batches import batches, make_columns, widen

ALL = [PPOClip(0.2), PPOClip(0.1, 0.28, 3.0), NoClip(), CISPO(0.3), GSPO(0.02, 0.03)]
every_surrogate = pytest.mark.parametrize("surrogate", ALL, ids=repr)


def apply(surrogate, weights, ratios):
    """Loss, gradient and clipped tokens of rows with old log probabilities of -1."""
    weight = torch.tensor(weights, dtype=torch.float64)
    old_logp = torch.full_like(weight, -1.0)
    logp = (torch.tensor(ratios, dtype=torch.float64).log() + old_logp).requires_grad_()
    streams = TokenWeights(policy=weight, imitation=torch.zeros_like(weight))
    terms = policy_loss(streams, logp, old_logp, surrogate)
    (gradient,) = torch.autograd.grad(terms.loss, logp)
    return terms.loss.item(), gradient.tolist(), terms.is_clipped.tolist()


def test_cispo_by_hand():
    # Ratios 1.5, 1.5, 0.5 with weights 2, -2, 1 and the bound 1.3. Gradient -min(ratio, 1.3) * w:
    # no token loses it. Loss -(1.3 * 2 * ln p - 1.3 * 2 * ln p + 0.5 * ln p3), ln p3 = -1 + ln 0.5.
    loss, gradient, is_clipped = apply(CISPO(0.3), [[2.0, -2.0, 1.0]], [[1.5, 1.5, 0.5]])
    assert gradient[0] == pytest.approx([-2.6, 2.6, -0.5], abs=1e-12)
    assert loss == pytest.approx(-0.5 * (-1 + math.log(0.5)), abs=1e-12)
    assert is_clipped == [[True, True, False]]


def test_gspo_by_hand():
    # Row 1: ratios 2 and 1/2: geometric mean 1, though each token is far off: not clipped; the
    # gradient is -1 * w. Row 2: 1.21 and 1 (and a token without weight): the mean is 1.1, above
    # 1.05: no gradient where w > 0. Row 3: the same ratios, w < 0: 1.1 * 3.
    # Loss -(2 * 1 + 2 * 1.05 - 2 * 3 * 1.1).
    weights = [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [-3.0, -3.0, 0.0]]
    ratios = [[2.0, 0.5, 1.0], [1.21, 1.0, 7.0], [1.21, 1.0, 7.0]]
    loss, gradient, is_clipped = apply(GSPO(0.1, 0.05), weights, ratios)
    flat = [-1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 3.3, 3.3, 0.0]
    assert [g for row in gradient for g in row] == pytest.approx(flat, abs=1e-12)
    assert loss == pytest.approx(-(2 + 2.1 - 6.6), abs=1e-12)
    assert is_clipped == [[False] * 3, [True, True, False], [False] * 3]


def test_with_equal_weights_in_a_row_gspo_has_the_gradient_of_its_papers_objective():
    # sum over rows of min(s * A, clip(s) * A) / rows, s = exp(mean log ratio), nothing detached.
    columns = make_columns(["xrrr", "xxrrrrr", "xr", "xrr"], [0.5, -0.25, 0.75, -1.0])
    method = dataclasses.replace(methods.grpo(), surrogate=GSPO(0.1, 0.15))
    clipped = 0
    for seed in range(8):
        logp = moved_logp(columns, seed)
        loss, gradient = loss_and_gradient(method.objectives()[0], columns, logp)
        own = logp.double().requires_grad_()
        objective = 0.0
        for row in range(columns.num_rows):
            is_response = columns.is_response[row]
            ratio = (own - columns.old_logp.double())[row][is_response].mean().exp()
            advantage = columns.advantage[row].item()
            bounded = ratio.clamp(0.9, 1.15)
            clipped += bool(bounded * advantage < ratio * advantage)
            objective = objective + torch.minimum(ratio * advantage, bounded * advantage) / 4
        (expected,) = torch.autograd.grad(-objective, own)
        torch.testing.assert_close(gradient, expected.float(), rtol=1e-4, atol=1e-7)
        assert loss == pytest.approx(-objective.item(), rel=1e-5, abs=1e-7)
    assert 0 < clipped < 8 * 4


def test_cispos_gradient_is_that_of_its_papers_objective():
    # sum of clip(ratio, 0, 1 + high), detached, * A * log pi over the tokens, divided as in GRPO.
    columns = make_columns(["xrrr", "xxrrrrr", "xr", "xrr"], [0.5, -0.25, 0.75, -1.0])
    method = dataclasses.replace(methods.grpo(), surrogate=CISPO(0.2))
    logp = moved_logp(columns, 3)
    loss, gradient = loss_and_gradient(method.objectives()[0], columns, logp)
    own = logp.double().requires_grad_()
    objective = 0.0
    for row, position in columns.is_response.nonzero().tolist():
        ratio = math.exp(logp[row, position].item() - columns.old_logp[row, position].item())
        length = int(columns.is_response[row].sum())
        weight = min(ratio, 1.2) * columns.advantage[row].item() / length / 4
        objective = objective + weight * own[row, position]
    (expected,) = torch.autograd.grad(-objective, own)
    torch.testing.assert_close(gradient, expected.float(), rtol=1e-4, atol=1e-8)
    assert loss == pytest.approx(-objective.item(), rel=1e-5)


@every_surrogate
@settings(max_examples=30, deadline=None)
@given(columns=batches(importance=True))
def test_at_the_old_policy_the_gradient_is_minus_the_weight_table(surrogate, columns):
    method = dataclasses.replace(methods.prefix_rft(), surrogate=surrogate)
    (objective,) = method.objectives()
    _, gradient = loss_and_gradient(objective, columns, columns.old_logp)
    _, plain = loss_and_gradient(methods.prefix_rft().objectives()[0], columns, columns.old_logp)
    assert torch.equal(gradient, plain)


@every_surrogate
@settings(max_examples=30, deadline=None)
@given(columns=batches(), seed=st.integers(0, 1000))
def test_rows_order_padding_and_micro_batches_change_nothing_but_rounding(surrogate, columns, seed):
    (objective,) = dataclasses.replace(methods.prefix_rft(), surrogate=surrogate).objectives()
    logp = moved_logp(columns, seed)
    loss, gradient = loss_and_gradient(objective, columns, logp)
    order = torch.randperm(columns.num_rows, generator=torch.Generator().manual_seed(seed))
    wide = widen(columns.rows(order), 2)
    wide_logp = torch.nn.functional.pad(logp[order], (0, 2), value=float("nan"))
    pieces = torch.tensor_split(torch.arange(columns.num_rows), 2)
    other_loss, other = loss_and_gradient(objective, wide, wide_logp, pieces=pieces)
    torch.testing.assert_close(other[:, :-2], gradient[order], rtol=1e-6, atol=0)
    assert not other[:, -2:].any()
    assert other_loss == pytest.approx(loss, rel=1e-5, abs=1e-6)


def test_a_clip_without_bounds_has_the_configs_and_all_others_their_own():
    bounds = PPOClip(0.1, 0.28, 3.0)
    assert PPOClip().completed_by(bounds) == bounds
    for own in (PPOClip(0.3), PPOClip(0.3, 0.4), NoClip(), CISPO(), GSPO()):
        assert own.completed_by(bounds) is own


def test_a_clip_without_bounds_clips_nothing_until_it_is_completed():
    with pytest.raises(AssertionError, match="complete the clip"):
        apply(PPOClip(), [[1.0]], [[1.5]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PPOClip(0.0), r"`low` must be in \(0, 1\), got 0.0\. It is the distance"),
        (lambda: PPOClip(20), r"`low` must be in \(0, 1\), got 20"),
        (lambda: PPOClip("0.2"), "`low` must be .* got '0.2'"),
        (lambda: PPOClip(True), "`low` must be .* got True"),
        (lambda: PPOClip(0.2, -0.1), "`high` must be a number above 0, got -0.1"),
        (lambda: PPOClip(0.2, float("nan")), "`high` must be a number above 0, got nan"),
        (lambda: PPOClip(0.2, dual=0.5), r"`dual` must be a number above 1, got 0.5\. 3 is usual"),
        (lambda: PPOClip(high=0.28), r"`high` \(0.28\) without `low`.*`clip_param_high`"),
        (lambda: PPOClip(dual=3.0), r"`dual` \(3.0\) without `low`"),
        (lambda: CISPO(0.0), "`high` must be a number above 0"),
        (lambda: GSPO(0.0, 0.1), r"`low` must be in \(0, 1\)"),
        (lambda: GSPO(None, None), r"`low` must be in \(0, 1\), got None"),
        (lambda: GSPO(0.1, 0.0), "`high` must be a number above 0"),
    ],
)
def test_bounds_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_bound_of_infinity_never_acts():
    loss, gradient, is_clipped = apply(
        PPOClip(0.2, math.inf, math.inf), [[1.0, -1.0]], [[9.0, 9.0]]
    )
    assert (loss, is_clipped) == (0.0, [[False, False]])
    assert gradient[0] == pytest.approx([-9.0, 9.0])


def test_surrogates_compare_pickle_and_print():
    for surrogate in [*ALL, PPOClip()]:
        again = pickle.loads(pickle.dumps(surrogate))
        assert (again, hash(again), repr(again)) == (surrogate, hash(surrogate), repr(surrogate))
    assert repr(PPOClip(0.2, 0.28)) == "PPOClip(low=0.2, high=0.28, dual=None)"


def test_only_the_methods_that_say_so_have_a_surrogate_of_their_own():
    own = {name: make().surrogate for name, make in METHODS.items()}
    own = {name: surrogate for name, surrogate in own.items() if surrogate != PPOClip()}
    assert own == {"luffy": NoClip(), "relift": NoClip(), "psft": PPOClip(0.2, 0.28)}


class Damped(Surrogate):
    """A surrogate of somebody else: tanh(log ratio) + 1."""

    def factor(self, weight, logp, old_logp):
        return NoClip().factor(weight, logp, old_logp)._replace(value=(logp - old_logp).tanh() + 1)


def test_a_surrogate_of_ones_own_needs_one_method():
    loss, gradient, _ = apply(Damped(), [[1.0, 2.0]], [[math.e, 1.0]])
    assert loss == pytest.approx(-(math.tanh(1) + 1 + 2))
    assert gradient[0] == pytest.approx([-(1 - math.tanh(1) ** 2), -2.0])
    assert Damped().completed_by(DEFAULT_CLIP).__class__ is Damped
