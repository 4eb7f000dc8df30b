"""The first minibatch gets old log-probabilities from its own training pass, where it can."""

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from prefix_rft_rllib import metrics
from tests.learners.torch.learners import build_learner, make_rows, update, weights_of

PICTURES = [
    "xxxpppprrrrr",  # of the first minibatch from here on
    "xxxrrrrrrrr",
    "xxrrrr",
    "xxrrrrrr",
    "xdddd",
    "xxpppppprrr",  # of the second
    "xxxrrr",
    "xrrrrrrrr",
    "xxddd",
]
ADVANTAGES = [0.5, -0.5, 0.25, 0.0, 0.0, -0.25, 0.75, -0.5, 0.0]
MINIBATCHES = [0, 0, 0, 0, 0, 1, 1, 1, 1]
NEEDS_NO_PASS = {
    # The entropy selection ranks the prefix tokens of all rows; row 3 has no advantage.
    "prefix_rft": [1, 2],
    "update_all": [0, 1, 2],
    "rl_with_sft_loss": [0, 1, 2, 4],
    "chord": [0, 1, 2],  # demonstrations are worth nothing in the first iteration
    "sft": [4],
    "dft": [4],
    "psft": [4],
}


@pytest.fixture
def config(tiny_config):
    return tiny_config.copy(copy_frozen=False).training(
        num_problems_per_iteration=2,
        num_problems_per_minibatch=1,
        lr=1e-2,
        max_tokens_per_microbatch=26,
    )


def rows():
    return make_rows(PICTURES, ADVANTAGES, MINIBATCHES)


def with_passes(learner):
    """Give every row a pass without gradients."""
    none = torch.zeros(len(PICTURES), dtype=torch.bool)
    piece = learner._learner_connector.connectors[-1]
    piece._rows_without_old_policy_pass = lambda columns: none
    return learner


def passes_of(learner):
    """A list that gets the number of rows of every pass without gradients."""
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    look, counts = module.token_logps, []

    def counted(part, **kwargs):
        counts.append(len(part["input_ids"]))
        return look(part, **kwargs)

    module.token_logps = counted
    return counts


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", NEEDS_NO_PASS)
def test_an_update_is_the_same_as_with_a_pass_for_every_row(config, method, compute_dtype):
    config.training(method=method, method_config={}, compute_dtype=compute_dtype)
    learner, other = build_learner(config), with_passes(build_learner(config))
    counts, other_counts = passes_of(learner), passes_of(other)
    before = weights_of(learner)
    actual, expected = update(learner, rows()), update(other, rows())
    assert sum(other_counts) == len(PICTURES)
    assert sum(counts) == len(PICTURES) - len(NEEDS_NO_PASS[method])
    # The rounding of another cut into micro-batches.
    rounding = 1e-5 if compute_dtype == "float32" else 2e-2
    moved = 0.0
    for name, value in weights_of(other).items():
        moved = max(moved, float((value - before[name]).abs().max()))
        if compute_dtype == "float32":
            torch.testing.assert_close(weights_of(learner)[name], value, rtol=0, atol=1e-4)
    assert moved > 5e-3
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name] == pytest.approx(value, rel=rounding, abs=rounding), name
    (_, logged), (_, other_logged) = learner.take_report(), other.take_report()
    assert logged.keys() == other_logged.keys()
    for index, values in other_logged.items():
        assert logged[index]["kept"] == values["kept"]
        for name in ("old_logp", "entropy", "weight"):
            assert logged[index][name] == pytest.approx(values[name], abs=rounding)


@pytest.mark.parametrize("method", NEEDS_NO_PASS)
def test_rows_that_need_no_pass_are_those_of_the_table(config, method):
    learner = build_learner(config.training(method=method, method_config={}))
    found = []
    own = learner.rows_without_old_policy_pass

    def noted(columns):
        found.append(own(columns))
        return found[-1]

    learner._learner_connector.connectors[-1]._rows_without_old_policy_pass = noted
    update(learner, rows())
    assert found[0].nonzero()[:, 0].tolist() == NEEDS_NO_PASS[method]


def test_the_ratio_of_the_first_minibatch_is_exactly_one(config):
    learner = build_learner(config.training(method="rft", method_config={}))
    first = [row for row, number in zip(rows(), MINIBATCHES, strict=True) if number == 0]
    assert update(learner, first)[metrics.RATIO_RESPONSE] == 1.0
    # Negative control: two minibatches, the second after a step.
    assert update(build_learner(config), rows())[metrics.RATIO_RESPONSE] != 1.0


@pytest.mark.parametrize("settings", [{"num_epochs": 2}, {"importance_weight_cap": 2.0}])
def test_every_row_has_a_pass_where_its_values_are_read_before_or_again(config, settings):
    learner = build_learner(config.training(**settings))
    counts = passes_of(learner)
    update(learner, rows(), num_epochs=learner.config.num_epochs)
    assert sum(counts) == len(PICTURES)
