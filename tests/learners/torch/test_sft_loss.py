"""The supervised loss is the one that transformers itself computes for labelled tokens."""

import pytest
import torch

from tests.learners.torch.learners import build_learner, make_rows, model_of, record_steps, update

PICTURES = ["xxdddddddd", "xdd", "xxxxd", "xddddd", "xxddddddddddd"]
IGNORED = -100


def sft_gradients(config, rows, dtype, **settings):
    """Gradients and loss of one minibatch by a learner whose model has some precision."""
    learner = build_learner(config.training(method="sft", grad_clip=None, lr=0.0, **settings))
    model_of(learner).to(dtype)
    steps = record_steps(learner)
    results = update(learner, rows)
    (step,) = steps
    return step.gradients, results["loss"], model_of(learner)


def padded(rows):
    """Token ids, attention and labels, padded on the right."""
    width = max(len(row.observations.data) for row in rows)
    input_ids = torch.zeros(len(rows), width, dtype=torch.int64)
    attention = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED)
    for number, row in enumerate(rows):
        tokens = torch.tensor([int(token) for token in row.observations.data])
        num_prompt = PICTURES[number].count("x")
        input_ids[number, : len(tokens)] = tokens
        attention[number, : len(tokens)] = 1
        labels[number, num_prompt : len(tokens)] = tokens[num_prompt:]
    return input_ids, attention, labels


def transformers_gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def causal_lm_loss(model, rows):
    input_ids, attention, labels = padded(rows)
    return model(input_ids=input_ids, attention_mask=attention, labels=labels).loss


def largest_difference(ours, theirs):
    """Relative to the largest entry of the same tensor; the largest over all tensors."""
    assert ours.keys() == theirs.keys()
    return max(
        float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max()) for name in theirs
    )


# Rows together, or in micro-batches of one or two: the sum is the mean over all tokens.
@pytest.mark.parametrize("budget", [10_000, 26, 1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sft_has_the_gradients_of_transformers_own_loss(tiny_config, dtype, budget):
    rows = make_rows(PICTURES, [0.0] * len(PICTURES))
    ours, loss, model = sft_gradients(tiny_config, rows, dtype, max_tokens_per_microbatch=budget)
    reference = causal_lm_loss(model, rows)
    theirs = transformers_gradients(model, reference)
    # In float64 too: ours has float32 weights, theirs float32 logits in the loss. In float32 the
    # processor's kernels decide in which order is summed.
    assert largest_difference(ours, theirs) <= (1e-6 if dtype == torch.float64 else 4e-6)
    assert loss == pytest.approx(reference.item(), rel=1e-6)


def test_negative_control_a_mean_of_row_means_is_another_gradient(tiny_config):
    # The bug of published SFT baselines: every row, or micro-batch, weighs the same.
    rows = make_rows(PICTURES, [0.0] * len(PICTURES))
    ours, _, model = sft_gradients(tiny_config, rows, torch.float64)
    input_ids, attention, labels = padded(rows)
    means = [
        model(
            input_ids=input_ids[row : row + 1],
            attention_mask=attention[row : row + 1],
            labels=labels[row : row + 1],
        ).loss
        for row in range(len(rows))
    ]
    wrong = transformers_gradients(model, torch.stack(means).mean())
    assert largest_difference(ours, wrong) > 0.05


def test_negative_control_labels_of_the_prompt_are_another_gradient(tiny_config):
    rows = make_rows(PICTURES, [0.0] * len(PICTURES))
    ours, _, model = sft_gradients(tiny_config, rows, torch.float64)
    input_ids, attention, _ = padded(rows)
    labels = torch.where(attention.bool(), input_ids, IGNORED)
    loss = model(input_ids=input_ids, attention_mask=attention, labels=labels).loss
    assert largest_difference(ours, transformers_gradients(model, loss)) > 0.05
