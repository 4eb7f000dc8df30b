"""The gradients of the compared methods, from the model's weights, against float64 formulas.

The formulas here are the methods' objectives with nothing detached but what their papers detach;
autograd differentiates them.
"""

import pytest

from prefix_rft_rllib import metrics
from prefix_rft_rllib.rollouts import row_data
from tests.learners.torch import slow_update
from tests.learners.torch.learners import (
    assert_same,
    build_learner,
    make_rows,
    one_gradient,
    record_steps,
    update,
)

TEMPERATURE = 0.8
T_MAX = 40


@pytest.fixture
def config(tiny_config):
    tiny_config.env_runners(temperature=TEMPERATURE)
    return tiny_config.training(grad_clip=None)


class Slow:
    """The model in float64, and sums over the tokens of rows at the old policy."""

    def __init__(self, config, rows):
        self.model = slow_update.load_float64(config.model_path)
        self.rows = rows

    def logps(self, row):
        return slow_update.token_logps(self.model, row, TEMPERATURE)

    def sampled(self, row):
        if row.custom_data[row_data.IS_DEMONSTRATION]:
            return []
        return self.logps(row)[row_data.num_prefix_tokens_of(row) :]

    def demonstration(self, row):
        return self.logps(row) if row.custom_data[row_data.IS_DEMONSTRATION] else []

    def prefix(self, row):
        if row.custom_data[row_data.IS_DEMONSTRATION]:
            return []
        return self.logps(row)[: row_data.num_prefix_tokens_of(row)]

    def surrogates(self, row, weights=None):
        """rho * A of the sampled tokens; rho = 1, but it has a gradient."""
        logps = self.sampled(row)
        weights = weights or [1.0] * len(logps)
        advantage = row.custom_data[row_data.ADVANTAGE]
        pairs = zip(logps, weights, strict=True)
        return [(logp - logp.detach()).exp() * advantage * weight for logp, weight in pairs]

    def dr_grpo(self, weights_of=lambda row: None):
        num_members = sum(row.custom_data[row_data.IS_MEMBER] for row in self.rows)
        total = sum(sum(self.surrogates(row, weights_of(row))) for row in self.rows)
        return total / num_members / T_MAX

    def grpo(self):
        means = [sum(s) / len(s) for s in map(self.surrogates, self.rows) if s]
        return sum(means) / len(means)

    def mean(self, tokens_of, factor=lambda logp: 1.0):
        values = [factor(logp) * logp for row in self.rows for logp in tokens_of(row)]
        return sum(values) / len(values)

    def gradient(self, objective):
        return slow_update.gradients_of(-objective, self.model)


def test_luffys_gradient_is_that_of_its_objective(config):
    rows = make_rows(
        ["xxrrr", "xxrrrrrr", "xxDDDDDDD", "xxxrr", "xxxrrrr", "xxxDDD"],
        [-1 / 3, -1 / 3, 2 / 3, 2 / 3, -1 / 3, -1 / 3],
    )
    for gamma in (0.1, 0.5):
        slow = Slow(config, rows)
        shaped = 0.0
        for row in rows:
            for logp in slow.demonstration(row):
                p = logp.exp()
                shaped = shaped + row.custom_data[row_data.ADVANTAGE] * p / (p + gamma)
        expected = slow.gradient(slow.dr_grpo() + shaped / 6 / T_MAX)
        config.training(method="luffy", method_config={"gamma": gamma})
        for budget in (10_000, 9):
            config.training(max_tokens_per_microbatch=budget)
            assert_same(one_gradient(config, rows), expected, tolerance=1e-5)


@pytest.mark.parametrize(("iteration", "mu"), [(0, 0.0), (100, 0.25), (200, 0.5), (400, 0.26)])
@pytest.mark.parametrize("phi", [True, False])
def test_chords_gradient_is_that_of_its_two_terms(config, iteration, mu, phi):
    rows = make_rows(
        ["xxrrr", "xxrrrrrr", "xxddddd", "xxxrr", "xxxrrrr", "xxxd"],
        [0.7, -0.7, 0.0, -0.25, 0.25, 0.0],
    )
    slow = Slow(config, rows)

    def factor(logp):
        p = logp.detach().exp()
        return p * (1 - p) if phi else 1.0

    objective = (1 - mu) * slow.grpo() + mu * slow.mean(slow.demonstration, factor)
    config.training(method="chord", method_config={"phi": phi})
    # The schedule counts the iterations of its stage, the order of minibatches those of the run.
    actual = one_gradient(config, rows, iteration=7, schedule_iteration=iteration)
    assert_same(actual, slow.gradient(objective), tolerance=1e-5)


def test_ufts_gradient_is_that_of_its_two_terms(config):
    rows = make_rows(["xxppprrr", "xxppprrrrrr", "xprr", "xprrrr"], [0.7, -0.7, 0.0, 0.0])
    slow = Slow(config, rows)
    expected = slow.gradient(slow.grpo() + 0.25 * slow.mean(slow.prefix))
    config.training(method="uft", method_config={"imitation_coeff": 0.25})
    assert_same(one_gradient(config, rows), expected, tolerance=1e-5)


def test_the_sft_loss_beside_rl_has_its_coefficient(config):
    rows = make_rows(["xxrrr", "xxrrrrrr", "xxddddd", "xd"], [0.5, -0.5, 0.0, 0.0])
    slow = Slow(config, rows)
    # The demonstrations' rows do not count as rollouts.
    expected = slow.gradient(slow.dr_grpo() + 0.5 * slow.mean(slow.demonstration))
    config.training(method="rl_with_sft_loss", method_config={"sft_coeff": 0.5})
    assert_same(one_gradient(config, rows), expected, tolerance=1e-5)


def test_relifts_objectives_are_rft_and_sft(config):
    config.training(method="relift")
    rows = make_rows(["xxrrr", "xxrrrrrr", "xrr", "xrrrr"], [0.5, -0.5, 0.25, -0.25])
    slow = Slow(config, rows)
    assert_same(one_gradient(config, rows), slow.gradient(slow.dr_grpo()), tolerance=1e-5)
    failed = make_rows(["xxddddddd", "xd", "xxdd"], [0.0] * 3)
    slow = Slow(config, failed)
    actual = one_gradient(config, failed, objective="imitation")
    assert_same(actual, slow.gradient(slow.mean(slow.demonstration)), tolerance=1e-5)


DEMONSTRATIONS = ["xxddddddd", "xd", "xxdd", "xxxddd"]


@pytest.mark.parametrize(
    ("method", "settings", "threshold"),
    [("dft", {}, 1.0), ("trsft", {}, 0.1), ("trsft", {"threshold": 0.01}, 0.01)],
)
def test_the_gradient_of_dft_and_trsft_is_that_of_sft_weighted_by_the_probability(
    config, method, settings, threshold
):
    rows = make_rows(DEMONSTRATIONS, [0.0] * 4)
    slow = Slow(config, rows)
    factors = []

    def factor(logp):
        factors.append(min(1.0, logp.detach().exp().item() / threshold))
        return factors[-1]

    expected = slow.gradient(slow.mean(slow.demonstration, factor))
    assert min(factors) < 0.5
    config.training(method=method, method_config=settings)
    assert_same(one_gradient(config, rows), expected, tolerance=1e-5)
    plain = slow.gradient(slow.mean(slow.demonstration))
    with pytest.raises(AssertionError):
        assert_same(plain, expected, tolerance=0.01)


def test_psft_is_sft_in_the_first_step_and_clips_what_has_risen_in_later_ones(config):
    rows = make_rows(DEMONSTRATIONS, [0.0] * 4)
    slow = Slow(config, rows)
    config.training(method="psft", lr=0.003, num_epochs=2)
    learner = build_learner(config)
    steps = record_steps(learner)
    results = update(learner, rows, num_epochs=2)
    first, second = steps
    expected = slow.gradient(slow.mean(slow.demonstration))
    assert_same(first.gradients, expected, tolerance=1e-5)
    # The second step: ratio * 1 where the ratio is at most 1.28, no gradient above.
    later = Slow(config, rows)
    later.model = slow_update.load_float64(config.model_path, second.weights)
    before = [logp.item() for row in rows for logp in slow.demonstration(row)]
    after = [logp for row in rows for logp in later.demonstration(row)]
    ratios = [(own - old).exp() for own, old in zip(after, before, strict=True)]
    risen = [ratio.item() > 1.28 for ratio in ratios]
    assert 0 < sum(risen) < len(risen)
    objective = sum(ratio.clamp(max=1.28) for ratio in ratios) / len(ratios)
    assert_same(second.gradients, later.gradient(objective), tolerance=1e-4)
    # Means over both steps, the first at the ratio 1.
    clipped = sum(risen) / len(risen) / 2
    assert results[metrics.CLIP_FRACTION_DEMONSTRATION] == pytest.approx(clipped)
    mean = (1 + sum(ratio.item() for ratio in ratios) / len(ratios)) / 2
    assert results[metrics.RATIO_DEMONSTRATION] == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize("cap", [2.0, 1.0])
def test_importance_weights_multiply_the_sampled_tokens(config, cap):
    rows = make_rows(["xxrrr", "xxrrrrrr", "xprr", "xrrrr"], [0.5, -0.5, 0.25, -0.25])
    slow = Slow(config, rows)

    def weights_of(row):
        engine = row_data.engine_logps_of(row)[row_data.num_prefix_tokens_of(row) :]
        pairs = zip(slow.sampled(row), engine.tolist(), strict=True)
        return [min((logp.detach() - sampled).exp().item(), cap) for logp, sampled in pairs]

    drawn = [weight for row in rows for weight in weights_of(row)]
    assert min(drawn) < 0.5 * cap
    assert max(drawn) == cap
    expected = slow.gradient(slow.dr_grpo(weights_of))
    config.training(method="freeze_prefix", importance_weight_cap=cap)
    assert_same(one_gradient(config, rows), expected, tolerance=1e-5)
    # And they are no small matter here.
    plain = slow.gradient(slow.dr_grpo())
    with pytest.raises(AssertionError):
        assert_same(plain, expected, tolerance=0.1)
