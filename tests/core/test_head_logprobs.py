"""Log probabilities from hidden states: against plain softmax and finite differences."""

import math

import pytest
import torch

from prefix_rft_rllib.core.head_logprobs import head_logp_and_entropy

TEMPERATURE = 0.7
NUM_TOKENS, DIM, VOCAB = 7, 5, 11


def make(num_tokens=NUM_TOKENS, dtype=torch.float64, bias=True):
    """Hidden states, weight, bias and targets; scores of size 3."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    hidden, weight = 1.5 * draw(num_tokens, DIM), draw(VOCAB, DIM)
    targets = torch.randint(VOCAB, (num_tokens,), generator=generator)
    return hidden, weight, draw(VOCAB) if bias else None, targets


def plain(hidden, weight, bias, targets, temperature=TEMPERATURE):
    """What PyTorch's own functions give, all logits at once."""
    logits = hidden @ weight.T
    scores = (logits if bias is None else logits + bias) / temperature
    logp = torch.log_softmax(scores, dim=-1)[torch.arange(len(targets)), targets]
    return logp, torch.distributions.Categorical(logits=scores).entropy()


def gradients(values, inputs, seed=1):
    """Gradients of a random weighted sum of some values."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(
        (torch.randn(v.shape, generator=generator, dtype=v.dtype) * v).sum() for v in values
    )
    return torch.autograd.grad(total, inputs)


def test_two_tokens_by_hand():
    # Logits 2 * ln 3 and 0 at temperature 2: probabilities 3/4 and 1/4.
    weight = torch.tensor([[math.log(3)], [0.0]], dtype=torch.float64)
    hidden, targets = torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([1])
    logp, entropy = head_logp_and_entropy(hidden, weight, targets, temperature=2.0)
    assert logp.item() == pytest.approx(math.log(0.25), abs=1e-12)
    expected = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert entropy.item() == pytest.approx(expected, abs=1e-12)
    # A bias of ln 3 on the second logit, at temperature 1 and a state of 1: both are as likely.
    bias = torch.tensor([0.0, math.log(3)], dtype=torch.float64)
    logp, entropy = head_logp_and_entropy(hidden / 2, weight, targets, bias=bias)
    assert logp.item() == pytest.approx(math.log(0.5), abs=1e-12)
    assert entropy.item() == pytest.approx(math.log(2), abs=1e-12)


def ours(inputs, targets, **options):
    hidden, weight, *bias = inputs
    settings = {"temperature": TEMPERATURE, "entropy_grad": True, **options}
    return head_logp_and_entropy(
        hidden, weight, targets, bias=bias[0] if bias else None, **settings
    )


def theirs(inputs, targets):
    hidden, weight, *bias = inputs
    return plain(hidden, weight, bias[0] if bias else None, targets)


def make_inputs(dtype=torch.float64, bias=True, num_tokens=NUM_TOKENS):
    *inputs, targets = make(num_tokens, dtype, bias)
    return [value.requires_grad_() for value in inputs if value is not None], targets


# 7 tokens: in chunks that divide them, that do not, one that is just enough, and one with room.
@pytest.mark.parametrize("chunk", [1, 3, 4, 7, 100, None])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_the_plain_computation(chunk, bias, dtype):
    inputs, targets = make_inputs(dtype, bias)
    tolerance = (
        {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0, "atol": 1e-12}
    )
    actual, expected = ours(inputs, targets, chunk=chunk), theirs(inputs, targets)
    for value, reference in zip(actual, expected, strict=True):
        assert value.dtype == dtype
        torch.testing.assert_close(value, reference, **tolerance)
    for chosen in ([0], [1], [0, 1]):  # through logp alone, entropy alone, both
        actual, expected = (
            gradients([values[i] for i in chosen], inputs)
            for values in (ours(inputs, targets, chunk=chunk), theirs(inputs, targets))
        )
        for value, reference in zip(actual, expected, strict=True):
            torch.testing.assert_close(value, reference, **tolerance)


@pytest.mark.parametrize("chunk", [2, 100])
@pytest.mark.parametrize("entropy_grad", [True, False])
def test_gradients_agree_with_finite_differences(chunk, entropy_grad):
    inputs, targets = make_inputs(num_tokens=5)

    def function(*values):
        logp, entropy = ours(values, targets, chunk=chunk, entropy_grad=entropy_grad)
        return (logp, entropy) if entropy_grad else logp

    assert torch.autograd.gradcheck(function, inputs)


def test_a_kept_chunk_and_recomputed_ones_are_equal():
    (hidden, *head), targets = make_inputs(torch.float32)
    kept = ours([hidden, *head], targets, chunk=NUM_TOKENS)
    twice = torch.cat([hidden, hidden]).detach().requires_grad_()
    # Two chunks of the same shape: nothing is kept.
    recomputed = ours([twice, *head], torch.cat([targets, targets]), chunk=NUM_TOKENS)
    # Rounding may depend on where in memory a chunk begins.
    tolerance = {"rtol": 1e-6, "atol": 1e-6}
    for value, other in zip(kept, recomputed, strict=True):
        for chunk in (other[:NUM_TOKENS], other[NUM_TOKENS:]):
            torch.testing.assert_close(value, chunk, **tolerance)
    (gradient,) = torch.autograd.grad(kept[0].sum() + kept[1].square().sum(), [hidden])
    (others,) = torch.autograd.grad(recomputed[0].sum() + recomputed[1].square().sum(), [twice])
    for chunk in (others[:NUM_TOKENS], others[NUM_TOKENS:]):
        torch.testing.assert_close(gradient, chunk, **tolerance)


def test_backward_twice_through_a_kept_chunk_gives_the_same_gradient():
    # The backward pass works in place in places: what the forward pass kept must stay as it was.
    inputs, targets = make_inputs()
    values = ours(inputs, targets)
    total = values[0].sum() + values[1].square().sum()
    first, second = (torch.autograd.grad(total, inputs, retain_graph=True) for _ in range(2))
    for value, other in zip(first, second, strict=True):
        assert torch.equal(value, other)


def test_no_token_has_no_values_and_no_gradient():
    inputs, targets = make_inputs(num_tokens=0)
    logp, entropy = ours(inputs, targets)
    assert logp.shape == entropy.shape == (0,)
    for gradient, value in zip(gradients((logp, entropy), inputs), inputs, strict=True):
        assert gradient.shape == value.shape
        assert not gradient.any()


def test_the_entropy_has_a_gradient_on_request_only():
    inputs, targets = make_inputs()
    assert ours(inputs, targets)[1].requires_grad
    assert not ours(inputs, targets, entropy_grad=False)[1].requires_grad


@pytest.mark.parametrize("chunk", [2, None])
def test_frozen_weights_get_no_gradient(chunk):
    (hidden, weight, bias), targets = make_inputs()
    weight, bias = weight.detach(), bias.detach()
    logp, _ = ours([hidden, weight, bias], targets, chunk=chunk)
    (actual,) = torch.autograd.grad(logp.sum(), [hidden])
    expected, _ = theirs([hidden, weight, bias], targets)
    torch.testing.assert_close(actual, *torch.autograd.grad(expected.sum(), [hidden]))


@pytest.mark.parametrize("chunk", [2, None])
def test_autocast_computes_logits_in_bfloat16_and_the_rest_in_float32(chunk):
    inputs, targets = make_inputs(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = ours(inputs, targets, chunk=chunk)
        hidden, weight, bias = inputs
        logits = torch.nn.functional.linear(hidden, weight, bias)
    assert logits.dtype == torch.bfloat16
    assert {value.dtype for value in values} == {torch.float32}
    log_probs = torch.log_softmax(logits.float() / TEMPERATURE, dim=-1)
    expected = log_probs[torch.arange(NUM_TOKENS), targets]
    torch.testing.assert_close(values[0], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        values[1], -(log_probs.exp() * log_probs).sum(-1), rtol=1e-5, atol=1e-5
    )
    # 8 bits of mantissa in the product of logit gradients and weights.
    for value, reference in zip(
        gradients(values, inputs), gradients(theirs(inputs, targets), inputs), strict=True
    ):
        assert value.dtype == torch.float32
        scale = float(reference.abs().max())
        torch.testing.assert_close(value, reference, rtol=0, atol=0.05 * scale)


def test_bfloat16_states_sum_their_weight_gradient_in_float32():
    # 1000 equal tokens: a running sum in bfloat16 would stop growing at 256 times a summand.
    hidden = torch.ones(1000, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.zeros(1000, dtype=torch.int64)
    logp, _ = head_logp_and_entropy(hidden, weight, targets, chunk=1)
    logp.sum().backward()
    assert weight.grad.flatten().tolist() == [500.0, -500.0]  # 1000 times 1 - 1/2


def test_forbidden_tokens_leave_entropy_and_gradients_finite():
    bias = torch.tensor([0.0, 0.0, -torch.inf])
    hidden = torch.ones(1, 1, requires_grad=True)
    weight = torch.zeros(3, 1, requires_grad=True)
    for chunk in (1, None):
        logp, entropy = head_logp_and_entropy(
            hidden, weight, torch.tensor([0]), bias=bias, chunk=chunk, entropy_grad=True
        )
        assert entropy.item() == pytest.approx(math.log(2))
        (gradient,) = torch.autograd.grad((logp + entropy).sum(), [weight])
        assert gradient.flatten().tolist() == pytest.approx([0.5, -0.5, 0.0])


def peak_elements(function):
    """Most elements of any one tensor that a function makes."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, call, types, args=(), kwargs=None):
            result = call(*args, **(kwargs or {}))
            for value in torch.utils._pytree.tree_leaves(result):
                if isinstance(value, torch.Tensor):
                    self.size = max(self.size, value.numel())
            return result

    with Largest() as largest:
        function()
    return largest.size


@pytest.mark.parametrize("compute", ["ours", "plain"])
def test_no_tensor_is_larger_than_the_weight_or_a_chunk_of_logits(compute):
    num_tokens, chunk = 640, 4
    inputs, targets = make_inputs(torch.float32, num_tokens=num_tokens)

    def run():
        values = (
            theirs(inputs, targets) if compute == "plain" else (ours(inputs, targets, chunk=chunk))
        )
        gradients(values, inputs)

    # States have 640 * 5 elements, all logits 640 * 11.
    expected = num_tokens * (VOCAB if compute == "plain" else DIM)
    assert peak_elements(run) == expected


@pytest.mark.parametrize(
    ("vocab_size", "num_tokens", "rows"), [(8192, 600, 512), (50_000, 120, 110)]
)
def test_chunks_have_four_million_logits_and_at_least_110_tokens(vocab_size, num_tokens, rows):
    hidden, weight = torch.zeros(num_tokens, 1), torch.zeros(vocab_size, 1)
    targets = torch.zeros(num_tokens, dtype=torch.int64)
    size = peak_elements(lambda: head_logp_and_entropy(hidden, weight, targets))
    assert size == rows * vocab_size


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"temperature": -1}, {"chunk": 0}])
def test_settings_out_of_range_are_refused(arguments):
    inputs, targets = make_inputs()
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must be"):
        ours(inputs, targets, **arguments)
