"""A run ends when too many optimizer steps in a row were left out."""

import math

import pytest

from prefix_rft_rllib.iterations.finite_steps import FiniteSteps
from prefix_rft_rllib.learners.torch import prefix_rft_torch_learner
from prefix_rft_rllib.runs.run_directory import read_metrics, read_minibatches
from tests.algorithm_runs import assert_same_weights, weights_of

FINE = {"loss": 0.5, "grad_norm": 1.0}
NO_LOSS = {"loss": math.nan, "grad_norm": 1.0}
NO_GRADIENT = {"loss": 0.5, "grad_norm": math.inf}


def test_steps_are_counted_in_a_row_over_updates():
    steps = FiniteSteps(3)
    steps.observe(1, [NO_LOSS, NO_GRADIENT])
    steps.observe(2, [FINE])
    steps.observe(3, [NO_LOSS, NO_LOSS])
    with pytest.raises(FloatingPointError) as caught:
        steps.observe(4, [NO_GRADIENT, FINE])
    assert "3 optimizer steps in a row were left out, the last in iteration 4: " in str(
        caught.value
    )
    assert "loss 0.5, gradient norm inf. `max_nonfinite_steps` is 3." in str(caught.value)


def test_without_a_limit_nothing_ends():
    FiniteSteps(None).observe(1, [NO_LOSS] * 1000)


@pytest.mark.integration
def test_a_run_ends_and_its_minibatches_are_written(tiny_config, tmp_path, monkeypatch):
    right_loss = prefix_rft_torch_learner.policy_loss

    def no_number(*args, **kwargs):
        terms = right_loss(*args, **kwargs)
        return terms._replace(loss=terms.loss * math.nan)

    # Two minibatches an iteration: the first iteration is tolerated, the second ends the run.
    algo = tiny_config.training(method="sft", max_nonfinite_steps=3).build_algo()
    before, checkpoint = weights_of(algo), algo.save_to_path(tmp_path / "checkpoint")
    monkeypatch.setattr(prefix_rft_torch_learner, "policy_loss", no_number)
    algo.train()
    with pytest.raises(FloatingPointError, match="3 optimizer steps in a row"):
        algo.train()
    assert len(read_minibatches(tmp_path / "run")) == 4
    assert_same_weights(weights_of(algo), before)
    algo.restore_from_path(checkpoint)  # the count begins anew: two more are tolerated
    algo.train()
    algo.stop()
    (row,) = read_metrics(tmp_path / "run")
    assert row["learner/num_nonfinite_steps"] == 2
    assert row["learner/num_optimizer_steps"] == 0
