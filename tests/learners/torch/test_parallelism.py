"""Two learners that share a model (FSDP2) or each hold it (DDP) train like one, on gloo."""

import contextlib
import copy

import gymnasium as gym
import numpy as np
import pytest
import ray
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch.distributed.tensor import DTensor

from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.rollouts.row_data import WholeSequences
from tests.learners.torch.learners import (
    build_learner,
    make_rows,
    model_of,
    record_steps,
    rows_of_groups,
    two_groups,
    update,
    weights_of,
)

pytestmark = pytest.mark.integration

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-3),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-4),
}
LRS = {"sgd": 1e-3, "adamw": 1e-4}
TOLERANCES = {"sgd": 1e-6, "adamw": 1e-5}


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(
        "local", num_cpus=5, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield
    ray.shutdown()


@contextlib.contextmanager
def group_of_two(config):
    config = config.copy(copy_frozen=False).learners(num_learners=2)
    config.validate()
    space = gym.spaces.Discrete(2)
    group = config.build_learner_group(spaces={DEFAULT_MODULE_ID: (space, space)})
    yield group
    group.shutdown()


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def group(request, module_config):
    with group_of_two(
        module_config.copy(copy_frozen=False).learners(parallelism=request.param)
    ) as group:
        yield group


@pytest.fixture(scope="module")
def module_config(tiny_model_dir):
    return (
        PrefixRFTConfig()
        .environment("PrefixRFT/ToyArithmetic-v0", env_config={"max_response_tokens": 40})
        .training(
            model_path=tiny_model_dir,
            num_problems_per_iteration=2,
            num_problems_per_minibatch=1,
            group_size=2,
            lr=0.0,
            kl_coeff=0.1,  # with a reference model, which is sharded too
            max_tokens_per_microbatch=12,
        )
        .learners(share_prompts=True)  # what rows of different prompts do not see
    )


def on_each(group, function):
    results = [result.get() for result in group.foreach_learner(function)]
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def whole(tensor):
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def whole_weights(learner):
    return {name: whole(p) for name, p in model_of(learner).named_parameters()}


def whole_gradients(learner):
    return {name: whole(p.grad) for name, p in model_of(learner).named_parameters()}


def take_optimizer(learner, name, lr):
    """Give a learner another optimizer; weights start anew elsewhere."""
    # Clipped in training; gradients are compared as they are.
    grad_clip = 0.5 if lr else None
    learner.config = learner.config.copy(copy_frozen=False).training(lr=lr, grad_clip=grad_clip)
    parameters = [p for p in learner.module[DEFAULT_MODULE_ID].parameters() if p.requires_grad]
    for full_name in list(learner._named_optimizers):
        old, new = learner._named_optimizers[full_name], OPTIMIZERS[name](parameters)
        learner._named_optimizers[full_name] = new
        learner._optimizer_parameters[new] = learner._optimizer_parameters.pop(old)


def start(group, config, optimizer="sgd", lr=0.0):
    """Three learners with the same weights and optimizers: one here, two in the group."""
    local = build_learner(config)
    take_optimizer(local, optimizer, lr)
    state = local.module[DEFAULT_MODULE_ID].get_state()

    def take(learner):
        learner.module[DEFAULT_MODULE_ID].unwrapped().set_state(copy.deepcopy(state))
        take_optimizer(learner, optimizer, lr)

    on_each(group, take)
    return local


def update_both(group, rows, iteration=0):
    results = group.update(
        training_data=WholeSequences(episodes=rows, keeps_groups=True),
        timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 0},
        num_epochs=1,
        iteration=iteration,
    )
    assert len(results) == 2


def uneven_rows(seed=0):
    """5 and 3 rows' worth of micro-batches of very different lengths; one without weight."""
    pictures = ["xxxpppprrrrr", "xxxrrrrrrrr", "xxpppppprrr", "xxrrrr", "xr", "x" + "r" * 20]
    return make_rows(pictures, [0.5, -0.5, -0.25, 0.25, 0.75, 0.0], seed=seed)


def first_gradients(group, config, rows):
    local = start(group, config)
    steps = record_steps(local)
    update(local, rows)
    update_both(group, rows)
    return on_each(group, whole_gradients), steps[-1].gradients


def largest_error(actual, expected):
    assert actual.keys() == expected.keys()
    return max(float((actual[name] - value).abs().max()) for name, value in expected.items())


def assert_one_gradient(gradients, expected, tolerance=1e-6):
    scale = max(float(value.abs().max()) for value in expected.values())
    for actual in gradients:
        assert largest_error(actual, expected) <= tolerance * scale


@pytest.mark.parametrize("rows", [two_groups, uneven_rows])
def test_the_first_gradient_is_that_of_one_learner(group, module_config, rows):
    gradients, expected = first_gradients(group, module_config, rows())
    assert_one_gradient(gradients, expected)


def test_with_shared_prompts_it_is_that_of_rows_alone(group, module_config):
    # A group for each learner; 4 + 2 + 5 and 4 + 6 tokens, and one row more for one of them.
    pictures = [["xxxxrr", "xxxxrrrrr", "xxxxr"], ["xxxxppppr", "xxxxr"]]
    gradients, expected = first_gradients(
        group,
        module_config.copy(copy_frozen=False).learners(share_prompts=False),
        rows_of_groups(pictures),
    )
    assert_one_gradient(gradients, expected)


def test_negative_control_without_one_learners_rows_it_is_another_gradient(group, module_config):
    def leave_rows_out(learner):
        if torch.distributed.get_rank() == 1:
            own = learner.compute_loss_for_module
            learner.compute_loss_for_module = lambda **kwargs: 0.0 * own(**kwargs)

    def put_rows_back(learner):
        learner.__dict__.pop("compute_loss_for_module", None)

    on_each(group, leave_rows_out)
    gradients, expected = first_gradients(group, module_config, two_groups())
    on_each(group, put_rows_back)
    with pytest.raises(AssertionError):
        assert_one_gradient(gradients, expected, tolerance=1e-2)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_three_updates_end_where_one_learner_ends(group, module_config, optimizer):
    local = start(group, module_config, optimizer, LRS[optimizer])
    before = weights_of(local)
    for iteration in range(3):
        rows = uneven_rows(seed=iteration)
        update(local, rows, iteration=iteration)
        update_both(group, rows, iteration)
    expected = weights_of(local)
    assert largest_error(expected, before) > 10 * TOLERANCES[optimizer]
    first, second = on_each(group, whole_weights)
    assert largest_error(first, expected) <= TOLERANCES[optimizer]
    assert largest_error(second, first) == 0.0


def test_weights_are_shared_only_when_they_shall_be(group, module_config):
    def share(learner):
        module = learner.module[DEFAULT_MODULE_ID].unwrapped()
        counts = []
        for scorer in module.scorers:
            held = [p.to_local() if isinstance(p, DTensor) else p for p in scorer.parameters()]
            counts.append(
                sum(p.numel() for p in held) / sum(p.numel() for p in scorer.parameters())
            )
        return counts

    expected = 0.5 if group.config.parallelism == "fsdp" else 1.0
    for shares in on_each(group, share):
        assert shares == pytest.approx([expected, expected], abs=0.02)  # model and reference


def test_states_are_whole_and_of_the_first_learner(group, module_config):
    local = start(group, module_config, "adamw", 1e-4)
    update(local, two_groups())
    update_both(group, two_groups())
    state, expected = group.get_state()["learner"], local.get_state()
    actual = state["rl_module"][DEFAULT_MODULE_ID]
    for name, value in expected["rl_module"][DEFAULT_MODULE_ID].items():
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=1e-5)
    assert state["optimizer"].keys() == expected["optimizer"].keys()
    for name, optimizer in expected["optimizer"].items():
        for index, values in optimizer["state"]["state"].items():
            for key, value in values.items():
                other = state["optimizer"][name]["state"]["state"][index][key]
                np.testing.assert_allclose(other, value, rtol=1e-3, atol=1e-6)


def test_a_state_of_two_continues_on_one_and_a_state_of_one_on_two(group, module_config):
    local = start(group, module_config, "adamw", 1e-4)
    update(local, two_groups())
    update_both(group, two_groups())
    other = build_learner(module_config)
    take_optimizer(other, "adamw", 1e-4)
    other.set_state(group.get_state()["learner"])
    rows = uneven_rows(seed=1)
    for learner in (local, other):
        update(learner, rows, iteration=1)
    update_both(group, rows, 1)
    expected = weights_of(local)
    assert largest_error(weights_of(other), expected) <= 1e-5
    assert largest_error(on_each(group, whole_weights)[0], expected) <= 1e-5
    # Back to the start of the second update, with the state of one, and again.
    start(group, module_config, "adamw", 1e-4)
    fresh = start(group, module_config, "adamw", 1e-4)
    update(fresh, two_groups())
    group.set_state({"learner": {**fresh.get_state(), "weights_seq_no": 0}})
    update_both(group, rows, 1)
    assert largest_error(on_each(group, whole_weights)[0], expected) <= 1e-5
    # Negative control: without the optimizer's state the step is another one.
    state = fresh.get_state()
    take_optimizer(fresh, "adamw", 1e-4)
    fresh.set_state({**state, "optimizer": {}, "weights_seq_no": 0})
    update(fresh, rows, iteration=1)
    assert largest_error(weights_of(fresh), expected) > 2e-5


def all_in_bfloat16(config, rows):
    """First gradient of one learner whose weights, and so all activations, are bfloat16."""
    learner = build_learner(config)
    for scorer in learner.module[DEFAULT_MODULE_ID].unwrapped().scorers:
        scorer.lm.to(torch.bfloat16)
    steps = record_steps(learner)
    update(learner, rows)
    return {name: value.float() for name, value in steps[0].gradients.items()}


def relative_error(actual, expected):
    norm = torch.nn.utils.get_total_norm
    return float(
        norm([actual[n] - value for n, value in expected.items()]) / norm(expected.values())
    )


def test_sharded_in_bfloat16_weights_and_gradients_stay_float32(module_config):
    # Without prefixes: which tokens have the highest entropy may change with the rounding.
    pictures = ["xxxrrrrrrrrr", "xxxrrrrrrrr", "xxrrrr", "x" + "r" * 20]
    rows = make_rows(pictures, [0.5, -0.5, -0.25, 0.25])
    config = module_config.copy(copy_frozen=False).training(compute_dtype="bfloat16")
    config.learners(parallelism="fsdp", activation_checkpointing=True)
    with group_of_two(config) as group:
        gradients, expected = first_gradients(group, module_config, rows)
        weights = on_each(group, whole_weights)
    # Sharded, all layers run in bfloat16, the sums between them too; autocast keeps those.
    alone = all_in_bfloat16(config, rows)
    usual = relative_error(alone, expected)
    assert usual > 0.01
    for actual in gradients:
        assert {value.dtype for value in actual.values()} == {torch.float32}
        assert 0.8 * usual < relative_error(actual, expected) < 1.25 * usual
        assert relative_error(actual, alone) < 0.5 * usual
    assert {value.dtype for value in weights[0].values()} == {torch.float32}
