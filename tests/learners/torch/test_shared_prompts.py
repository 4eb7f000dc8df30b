"""Updates of rows that share their prompts, against rows that are run alone."""

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from prefix_rft_rllib.rollouts import row_data
from tests.learners.torch import slow_update
from tests.learners.torch.learners import (
    assert_same,
    build_learner,
    make_rows,
    one_gradient,
    record_steps,
    rows_of_groups,
    update,
    weights_of,
)

TEMPERATURE = 0.8


@pytest.fixture
def config(tiny_config):
    tiny_config.env_runners(temperature=TEMPERATURE)
    return tiny_config.training(grad_clip=None).learners(share_prompts=True)


GROUPS = [
    ["xxxxxpppprrrrr", "xxxxxrrrrrrrr", "xxxxxpprrrrr", "xxxxxr"],
    ["xxxxpppppprrr", "xxxxrrrr", "xxxxrrrrrrr"],
]


@pytest.fixture
def num_tokens(monkeypatch):
    """Tokens that the backbone computes, one number for each of its passes from now on."""
    counts = []

    def watch(learner):
        def note(module, args, kwargs):
            counts.append(args[0].numel())

        lm = learner.module[DEFAULT_MODULE_ID].unwrapped().lm
        lm.base_model.register_forward_pre_hook(note, with_kwargs=True)
        return counts

    return watch


@pytest.mark.parametrize("budget", [1, 20, 10_000])
def test_the_gradient_equals_that_of_a_slow_float64_loop(config, budget):
    rows = rows_of_groups(GROUPS)
    config.training(max_tokens_per_microbatch=budget)
    assert_same(
        one_gradient(config, rows), slow_update.prefix_rft_gradient(config, rows), tolerance=1e-5
    )


@pytest.mark.parametrize("budget", [20, 30, 10_000])
def test_every_pass_stays_within_the_budget_and_prompts_are_computed_once(
    config, num_tokens, budget
):
    learner = build_learner(config.training(max_tokens_per_microbatch=budget))
    counts = num_tokens(learner)
    update(learner, rows_of_groups(GROUPS))
    assert max(counts) <= budget
    if budget == 10_000:
        # 5 + 4 tokens of prompts, 4 and 6 of prefixes (the third row's are the first one's), and
        # 5 + 8 + 5 + 1 and 3 + 4 + 7 sampled ones. The rows with prefixes are run before the step,
        # (5 + 4 + 5 + 5) + (4 + 6 + 3), and with all others in it.
        assert counts == [32, 52]


def test_rows_of_different_problems_are_run_as_before(config):
    rows = make_rows(["xxddddddd", "xxxdd", "xd"], [0.0] * 3)
    config.training(method="sft")
    shared = one_gradient(config, rows)
    apart = one_gradient(config.learners(share_prompts=False), rows)
    assert all(torch.equal(value, apart[name]) for name, value in shared.items())


def test_steps_epochs_and_reference_are_those_of_rows_alone(config):
    config.training(
        num_problems_per_iteration=2,
        num_problems_per_minibatch=1,
        num_epochs=2,
        kl_coeff=0.1,
        entropy_coeff=0.01,
        lr=1e-3,
        importance_weight_cap=2.0,
    )
    rows, weights, steps = rows_of_groups(GROUPS, [0, 1]), [], []
    for share_prompts in (True, False):
        learner = build_learner(config.learners(share_prompts=share_prompts))
        steps.append(record_steps(learner))
        update(learner, rows, num_epochs=2)
        weights.append(weights_of(learner))
    assert len(steps[0]) == len(steps[1]) == 4
    for shared, apart in zip(*steps, strict=True):
        assert_same(shared.gradients, apart.gradients, tolerance=1e-3)
    assert_same(steps[0][0].gradients, steps[1][0].gradients, tolerance=1e-5)


def test_adapters_and_the_model_without_them_as_reference(config):
    pytest.importorskip("peft")
    config.training(kl_coeff=0.1, lr=1e-3, num_epochs=2)
    config.learners(lora={"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"]})
    weights = []
    for share_prompts in (True, False):
        learner = build_learner(config.learners(share_prompts=share_prompts))
        before = weights_of(learner)
        update(learner, rows_of_groups(GROUPS), num_epochs=2)
        weights.append(weights_of(learner))
    shared, apart = weights
    moved = max(float((value - before[name]).abs().max()) for name, value in apart.items())
    assert moved > 1e-3
    for name, value in apart.items():
        torch.testing.assert_close(shared[name], value, rtol=0, atol=1e-5)


def test_rows_of_zero_weight_are_not_run(config, num_tokens):
    rows = rows_of_groups(GROUPS)
    for row in rows[4:]:
        row.custom_data[row_data.ADVANTAGE] = 0.0
    learner = build_learner(config)
    counts = num_tokens(learner)
    update(learner, rows)
    # Before the step the rows with prefixes, 19 and 13 tokens, and those that are worth nothing,
    # 4 + 7 more; trained are those of the first group.
    assert counts == [43, 28]
