import math

import pytest
import torch

from prefix_rft_rllib.core.logprobs import logp_and_entropy


def make(num_rows=3, num_positions=7, num_tokens=11, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(
        num_rows, num_positions, num_tokens, generator=generator, dtype=torch.float64
    )
    targets = torch.randint(num_tokens, (num_rows, num_positions), generator=generator)
    return (3 * logits).to(dtype), targets


def test_two_tokens_by_hand():
    # Logits ln 3 and 0: probabilities 3/4 and 1/4; at temperature 1/2: 9/10 and 1/10.
    logits = torch.tensor([[[math.log(3), 0.0]]], dtype=torch.float64)
    logp, entropy = logp_and_entropy(logits, torch.tensor([[1]]))
    assert logp.item() == pytest.approx(math.log(0.25), abs=1e-12)
    assert entropy.item() == pytest.approx(
        -0.75 * math.log(0.75) - 0.25 * math.log(0.25), abs=1e-12
    )
    logp, entropy = logp_and_entropy(logits, torch.tensor([[0]]), temperature=0.5)
    assert logp.item() == pytest.approx(math.log(0.9), abs=1e-12)
    assert entropy.item() == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1), abs=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_agree_with_a_plain_loop(temperature):
    logits, targets = make()
    logp, entropy = logp_and_entropy(logits, targets, temperature, chunk=2)
    for row in range(3):
        for position in range(7):
            scores = [value / temperature for value in logits[row, position].tolist()]
            total = math.fsum(math.exp(score) for score in scores)
            log_probs = [score - math.log(total) for score in scores]
            target = targets[row, position].item()
            assert logp[row, position].item() == pytest.approx(log_probs[target], abs=1e-12)
            expected = -math.fsum(math.exp(value) * value for value in log_probs)
            assert entropy[row, position].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("entropy_grad", [True, False])
def test_gradients_agree_with_finite_differences(chunk, entropy_grad):
    logits, targets = make(num_rows=2, num_positions=4, num_tokens=5)
    logits.requires_grad_()

    def function(scores):
        logp, entropy = logp_and_entropy(scores, targets, 0.7, chunk, entropy_grad)
        return (logp, entropy) if entropy_grad else logp

    assert torch.autograd.gradcheck(function, (logits,))


def test_gradients_agree_with_those_of_log_softmax():
    logits, targets = make(dtype=torch.float32)
    weights = torch.randn(3, 7, generator=torch.Generator().manual_seed(1))
    logits.requires_grad_()
    logp, _ = logp_and_entropy(logits, targets, chunk=2)
    (ours,) = torch.autograd.grad((weights * logp).sum(), logits)
    plain = torch.log_softmax(logits, dim=-1).gather(-1, targets[..., None]).squeeze(-1)
    (theirs,) = torch.autograd.grad((weights * plain).sum(), logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_entropy_has_a_gradient_on_request_only():
    logits, targets = make()
    logits.requires_grad_()
    assert not logp_and_entropy(logits, targets)[1].requires_grad
    assert logp_and_entropy(logits, targets, entropy_grad=True)[1].requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_logits_are_reduced_in_float32(dtype):
    logits, targets = make(dtype=dtype)
    logits.requires_grad_()
    logp, entropy = logp_and_entropy(logits, targets)
    assert logp.dtype == entropy.dtype == torch.float32
    exact, exact_entropy = logp_and_entropy(logits.detach().double(), targets)
    torch.testing.assert_close(logp.double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy.double(), exact_entropy, rtol=1e-5, atol=1e-5)
    logp.sum().backward()
    assert logits.grad.dtype == dtype


def test_the_chunk_changes_no_bit():
    logits, targets = make(dtype=torch.float32)
    whole = logp_and_entropy(logits, targets, chunk=7)
    for chunk in (1, 2, None):
        part = logp_and_entropy(logits, targets, chunk=chunk)
        assert torch.equal(part[0], whole[0])
        assert torch.equal(part[1], whole[1])


def test_forbidden_tokens_leave_entropy_and_gradients_finite():
    logits = torch.tensor([[[0.0, 0.0, -torch.inf]]], requires_grad=True)
    logp, entropy = logp_and_entropy(logits, torch.tensor([[0]]), entropy_grad=True)
    assert entropy.item() == pytest.approx(math.log(2))
    (logp + entropy).sum().backward()
    assert logits.grad[0, 0].tolist() == pytest.approx([0.5, -0.5, 0.0])


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"temperature": -1}, {"chunk": 0}])
def test_settings_out_of_range_are_refused(arguments):
    logits, targets = make()
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must be"):
        logp_and_entropy(logits, targets, **arguments)
