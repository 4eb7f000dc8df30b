"""The compared methods on two groups: from rewards to the gradient, on paper and by a slow loop.

Every picture is one row (x prompt, p prefix, r sampled, d demonstration, D demonstration that is a
member of its group). T_max is 10. Gradients are d loss / d log pi.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.methods import build
from tests.core import slow_methods as slow
from tests.core.credited_groups import credited, groups_for, log_table, sampled_at
from tests.core.objective_cases import (
    CASES,
    loss_and_gradient,
    moved_logp,
    slow_loss_and_gradient,
)

H = 0.5  # pi_old of a token whose ratio the working names


def check(objective, columns, logp, *, loss, grad, iteration=0):
    """Loss and gradient against numbers on paper; short rows are padding."""
    width = columns.region.shape[1]
    actual_loss, actual = loss_and_gradient(objective, columns, logp, iteration=iteration)
    expected = torch.tensor([[*row, *[0.0] * (width - len(row))] for row in grad])
    torch.testing.assert_close(actual, expected, rtol=2e-6, atol=0)
    assert actual_loss == pytest.approx(loss, rel=2e-6, abs=1e-8)


def test_prefix_rft_by_hand():
    # Group 1: rewards 1 (hybrid) and 0, mean 1/2: A = 1/2, -1/2. Group 2: both 0: A = 0.
    # Divisor 4 rows * T_max 10 = 40. Five prefix tokens, ceil(0.2 * 5) = 1 keeps its weight: that
    # of entropy 2.5 (row 0, position 3); the prefix of the group without signal is ranked too.
    method = build("prefix_rft")
    (objective,) = method.objectives()
    columns = credited(
        method,
        [[("xxpppr", 1), ("xxrr", 0)], [("xppr", 0), ("xrrr", 0)]],
        entropies=[
            [9, 9, 0.5, 2.5, 1.0, 3],
            [9, 9, 3, 3],
            [9, 2.0, 0.1, 3],
            [9, 3, 3, 3],
        ],
    )
    columns = sampled_at(columns, [[H] * 6, [H] * 4, [H] * 4, [H] * 4])
    a = 0.5 / 40
    # At the old policy: minus the weights. Loss -(2a - 2a) = 0.
    grad = [[0, 0, 0, -a, 0, -a], [0, 0, a, a], [0], [0]]
    check(objective, columns, columns.old_logp, loss=0.0, grad=grad)
    # Ratio 1.5 everywhere: positive weights are clipped at 1.2 and have no gradient, negative ones
    # are not: loss -(2 * 1.2 a - 2 * 1.5 a) = 0.6 a.
    logp = columns.old_logp + math.log(1.5)
    grad = [[0], [0, 0, 1.5 * a, 1.5 * a], [0], [0]]
    check(objective, columns, logp, loss=0.6 * a, grad=grad)
    # Ratio 1/2: now the negative ones are, at 0.8: loss -(2 * 0.5 a - 2 * 0.8 a) = 0.6 a.
    grad = [[0, 0, 0, -0.5 * a, 0, -0.5 * a], [0], [0], [0]]
    check(objective, columns, columns.old_logp + math.log(0.5), loss=0.6 * a, grad=grad)


def test_luffy_by_hand():
    # Group 1: rollouts fail, the demonstration earns 1; mean of all three 1/3: A = -1/3, -1/3, 2/3.
    # Group 2: a rollout succeeds, the demonstration is graded wrong: A = 2/3, -1/3, -1/3.
    # Divisor: 6 members, demonstrations included, * 10 = 60. So a third is a = 1 / 180.
    # gamma p / (p + gamma)^2 with gamma 0.1: p = 0.1: 0.01 / 0.04 = 1/4 (its maximum);
    # p = 0.4: 0.04 / 0.25 = 4/25; p = 0.9: 0.09 / 1 = 9/100.
    method = build("luffy")
    (objective,) = method.objectives()
    columns = credited(
        method, [[("xrr", 0), ("xr", 0), ("xDD", 1)], [("xr", 1), ("xrrr", 0), ("xD", 0)]]
    )
    p = [[None, H, H], [None, H], [None, 0.1, 0.4], [None, H], [None, H, H, H], [None, 0.9]]
    columns = sampled_at(columns, p)
    assert columns.advantage.tolist() == pytest.approx(
        [-1 / 3, -1 / 3, 2 / 3, 2 / 3, -1 / 3, -1 / 3]
    )
    a = 1 / 180
    demonstrations = {2: [0, -2 * a / 4, -2 * a * 4 / 25], 5: [0, a * 9 / 100]}
    # Loss at ratio 1: sampled tokens -(-3a + 2a - 3a) = 4a; demonstrations, weights detached:
    # -2a (ln 0.1 / 4 + 4 ln 0.4 / 25) + a * 9 ln 0.9 / 100.
    imitated = 2 * a * (math.log(0.1) / 4 + math.log(0.4) * 4 / 25) - a * math.log(0.9) * 9 / 100
    check(
        objective,
        columns,
        columns.old_logp,
        loss=4 * a - imitated,
        grad=[[0, a, a], [0, a], demonstrations[2], [0, -2 * a], [0, a, a, a], demonstrations[5]],
    )
    # Sampled tokens at ratio 1.8 have no clip: 1.8 times the gradient for both signs of A.
    # Demonstration tokens know no ratio: only p counts.
    moved = [[0.9 if q == H else q for q in row] for row in p]
    check(
        objective,
        columns,
        log_table(columns, moved),
        loss=1.8 * 4 * a - imitated,
        grad=[
            [0, 1.8 * a, 1.8 * a],
            [0, 1.8 * a],
            demonstrations[2],
            [0, -3.6 * a],
            [0, 1.8 * a, 1.8 * a, 1.8 * a],
            demonstrations[5],
        ],
    )


def test_uft_by_hand():
    # Group 1: rewards 1, 0: mean 1/2, sample deviation sqrt((1/4 + 1/4) / 1) = 0.70710678:
    # A = +-0.5 / (0.70710678 + 1e-6) = +-s with s = 0.7071057811. Group 2: equal, A = 0.
    # Sampled tokens: mean over 4 rows of the mean over each row's: s / (4 * 2), -s / (4 * 1).
    # Hint tokens: 2 + 2 + 1 + 1 = 6, beta / 6 each, with or without signal.
    method = build("uft", {"imitation_coeff": 0.03})
    (objective,) = method.objectives()
    columns = credited(method, [[("xpprr", 1), ("xppr", 0)], [("xpr", 0), ("xprr", 0)]])
    columns = sampled_at(
        columns, [[None, 0.2, 0.2, H, H], [None, 0.2, 0.2, H], [None, 0.2, H], [None, 0.2, H, H]]
    )
    s, b = 0.7071057811, 0.03 / 6
    assert columns.advantage.tolist() == pytest.approx([s, -s, 0, 0], rel=1e-7)
    # Loss: the surrogates cancel, -(2 s / 8 - s / 4) = 0; -0.03 * mean log = -0.03 ln 0.2.
    check(
        objective,
        columns,
        columns.old_logp,
        loss=-0.03 * math.log(0.2),
        grad=[[0, -b, -b, -s / 8, -s / 8], [0, -b, -b, s / 4], [0, -b], [0, -b]],
    )
    # All ratios 1.5: the clip stays on for sampled tokens, hints (now p = 0.3) have none.
    # Loss: -(1.2 * 2 s / 8 - 1.5 * s / 4) - 0.03 ln 0.3.
    check(
        objective,
        columns,
        columns.old_logp + math.log(1.5),
        loss=(1.5 - 1.2) * s / 4 - 0.03 * math.log(0.3),
        grad=[[0, -b, -b], [0, -b, -b, 1.5 * s / 4], [0, -b], [0, -b]],
    )


def test_chord_by_hand():
    # Iteration 400 is half-way down the cosine (from 200, over 400 iterations): mu = 0.02 +
    # 0.48 / 2 = 0.26, so 0.74 of GRPO. A = +-s as for UFT: weights 0.74 s / (4 * 2) and
    # -0.74 s / (4 * 1); the demonstrations' rows do not count there.
    # Three demonstration tokens, phi = p (1 - p): 0.5: 1/4, 0.1: 0.09, 0.9: 0.09.
    method = build("chord")
    (objective,) = method.objectives()
    columns = credited(
        method, [[("xrr", 1), ("xr", 0), ("xdd", None)], [("xr", 0), ("xr", 0), ("xd", None)]]
    )
    p = [[None, H, H], [None, H], [None, 0.5, 0.1], [None, H], [None, H], [None, 0.9]]
    columns = sampled_at(columns, p)
    s = 0.74 * 0.7071057811
    m = 0.26 / 3
    imitated = m * (0.25 * math.log(0.5) + 0.09 * math.log(0.1) + 0.09 * math.log(0.9))
    demonstrations = {2: [0, -m / 4, -m * 0.09], 5: [0, -m * 0.09]}
    check(
        objective,
        columns,
        columns.old_logp,
        iteration=400,
        loss=-imitated,
        grad=[[0, -s / 8, -s / 8], [0, s / 4], demonstrations[2], [0], [0], demonstrations[5]],
    )
    # Sampled tokens at ratio 1/2: clipped at 0.8 where A < 0. -(0.5 * 2 s / 8 - 0.8 s / 4).
    moved = [[0.25 if q == H else q for q in row] for row in p[:2]] + p[2:]
    check(
        objective,
        columns,
        log_table(columns, moved),
        iteration=400,
        loss=(0.8 - 0.5) * s / 4 - imitated,
        grad=[[0, -s / 16, -s / 16], [0], demonstrations[2], [0], [0], demonstrations[5]],
    )
    # Without phi the weight is mu / 3; in iteration 0 mu is 0: GRPO alone.
    (plain,) = build("chord", {"phi": False}).objectives()
    grad = [[0, -s / 8, -s / 8], [0, s / 4], [0, -m, -m], [0], [0], [0, -m]]
    loss = -m * math.log(0.5 * 0.1 * 0.9)
    check(plain, columns, columns.old_logp, iteration=400, loss=loss, grad=grad)
    s /= 0.74
    grad = [[0, -s / 8, -s / 8], [0, s / 4], [0], [0], [0], [0]]
    check(objective, columns, columns.old_logp, iteration=0, loss=0.0, grad=grad)


def test_relift_by_hand():
    # Group 1: rewards 1, 0: A = 1/2, -1/2. Group 2: no rollout solves it: A = 0, and it goes to the
    # buffer. Divisor 4 * 10: a = 0.5 / 40.
    method = build("relift")
    main, imitation = method.objectives()
    columns = credited(method, [[("xrr", 1), ("xr", 0)], [("xr", 0), ("xrr", 0)]])
    columns = sampled_at(columns, [[None, H, H], [None, H], [None, H], [None, H, H]])
    a = 0.5 / 40
    grad = [[0, -a, -a], [0, a], [0], [0]]
    check(main, columns, columns.old_logp, loss=-a, grad=grad)
    # No clip: at ratio 1.5 the gradients are 1.5 times those at ratio 1.
    grad = [[0, -1.5 * a, -1.5 * a], [0, 1.5 * a], [0], [0]]
    check(main, columns, columns.old_logp + math.log(1.5), loss=-1.5 * a, grad=grad)
    # The separate step, on demonstrations alone: the mean over 2 + 1 = 3 tokens.
    rows = credited(method, [[("xdd", None)], [("xd", None)]])
    rows = sampled_at(rows, [[None, 0.5, 0.1], [None, 0.9]])
    grad = [[0, -1 / 3, -1 / 3], [0, -1 / 3]]
    loss = -math.log(0.5 * 0.1 * 0.9) / 3
    check(imitation, rows, rows.old_logp, loss=loss, grad=grad)


def test_the_two_level_baseline_by_hand():
    # Plain rewards 1, 0, 0: mean 1/3. The hybrid's 1 - 1/3 = 2/3, the plain ones' 2/3, -1/3, -1/3.
    method = build("prefix_rft", {"advantage": "two_level"})
    columns = credited(method, [[("xpr", 1), ("xr", 1), ("xr", 0), ("xr", 0)]])
    assert columns.advantage.tolist() == pytest.approx([2 / 3, 2 / 3, -1 / 3, -1 / 3])


COMPARED = [
    case
    for case in CASES
    if case.method in ("prefix_rft", "luffy", "uft", "chord", "relift", "rft", "grpo", "dr_po")
    and "two_level" not in case.name
]
STANDARDISED = {"uft", "chord", "grpo"}


@pytest.mark.parametrize("case", COMPARED, ids=str)
@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), iteration=st.integers(0, 700))
def test_from_rewards_to_gradients_by_a_plain_float64_loop(case, data, seed, iteration):
    method = build(case.method)
    groups = data.draw(groups_for(method))
    columns = credited(method, groups, seed)
    logp = moved_logp(columns, seed)
    loss, grad = loss_and_gradient(case.objective, columns, logp, iteration=iteration)

    tokens = slow.Tokens(columns, logp, 10)
    tokens.advantage = slow_advantages(case.method, groups)
    case.slow(tokens, iteration)
    assert loss == pytest.approx(tokens.loss, rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(grad.numpy(), tokens.gradient, rtol=1e-5, atol=1e-8)


def slow_advantages(name, groups):
    """Advantages in float64, row by row; 0 for rows that are no members."""
    rule = slow.standardised_advantages if name in STANDARDISED else slow.mean_advantages
    advantages = []
    for group in groups:
        rewards = [reward for _, reward in group if reward is not None]
        credit = iter(rule(rewards) if len(rewards) > 1 else [])
        advantages += [0.0 if reward is None else next(credit) for _, reward in group]
    return advantages


@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), gamma=st.sampled_from([0.05, 0.1, 1.0]))
def test_luffys_gradient_is_that_of_its_objective_by_finite_differences(data, seed, gamma):
    method = build("luffy", {"gamma": gamma})
    columns = credited(method, data.draw(groups_for(method)), seed)
    logp = moved_logp(columns, seed).double()
    _, grad = loss_and_gradient(method.objectives()[0], columns, logp.float())

    def objective(table):
        return slow_loss_and_gradient(
            lambda tokens, _: slow.luffy(tokens, gamma=gamma), columns, table
        )[2].objective

    step = 1e-6
    for row, position in columns.is_demonstration.nonzero().tolist():
        up, down = logp.clone(), logp.clone()
        up[row, position] += step
        down[row, position] -= step
        slope = (objective(up) - objective(down)) / (2 * step)
        # Central differences: errors of step^2 and of float64's rounding over the step.
        assert grad[row, position].item() == pytest.approx(-slope, rel=1e-5, abs=1e-8)
