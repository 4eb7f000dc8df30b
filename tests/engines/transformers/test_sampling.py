import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.engines.transformers.sampling import (
    TokenSampler,
    draw,
    nucleus,
    to_signed_64,
    uniforms,
)

_MASK = 2**64 - 1


def _splitmix_finalizer(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def _uniform_in_python(seed: int, position: int) -> float:
    golden = 0x9E3779B97F4A7C15
    state = _splitmix_finalizer((seed + golden) & _MASK)
    return (_splitmix_finalizer((state + (position + 1) * golden) & _MASK) >> 11) / 2**53


def _uniforms(seeds: list[int], positions: list[int]) -> torch.Tensor:
    signed = torch.tensor([to_signed_64(seed) for seed in seeds])
    return uniforms(signed[:, None], torch.tensor(positions)[None, :])


def test_splitmix_finalizer_reproduces_published_outputs():
    # The first outputs of SplitMix64 started at 0, as printed with its reference implementation.
    golden = 0x9E3779B97F4A7C15
    outputs = [_splitmix_finalizer((i * golden) & _MASK) for i in (1, 2)]
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


@given(seed=st.integers(-(2**70), 2**70), position=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_uniform_equals_the_same_hash_in_python_integers(seed, position):
    value = _uniforms([seed], [position]).item()
    assert value == _uniform_in_python(seed % 2**64, position)
    assert 0.0 <= value < 1.0


def test_seeds_are_taken_modulo_two_to_the_64():
    assert to_signed_64(-1) == -1 == to_signed_64(2**64 - 1)
    assert to_signed_64(2**63) == -(2**63)
    assert torch.equal(_uniforms([5], [0, 1]), _uniforms([5 + 2**64], [0, 1]))


def test_uniforms_are_flat_and_neighbours_are_uncorrelated():
    # 200 x 200 draws: the mean's and correlations' standard errors are 0.0014 and 0.005.
    values = _uniforms(list(range(200)), list(range(200)))
    counts = torch.histc(values, bins=50, min=0, max=1)
    chi_square = ((counts - 800) ** 2 / 800).sum().item()
    assert chi_square < 85.4  # 99.9% point of chi-square with 49 degrees of freedom
    assert abs(values.mean().item() - 0.5) < 0.006
    pairs = {
        "seeds": (values[:-1], values[1:]),
        "positions": (values[:, :-1], values[:, 1:]),
        "diagonal": (values[:-1, 1:], values[1:, :-1]),
        "other diagonal": (values[:-1, :-1], values[1:, 1:]),
    }
    for name, (a, b) in pairs.items():
        correlation = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        assert abs(correlation.item()) < 0.02, name


def test_draw_inverts_the_distribution_function_by_hand():
    # Cumulative: 0.25, 0.25, 0.75, 1.0. A draw takes the first token with a value above u.
    probabilities = torch.tensor([0.25, 0.0, 0.5, 0.25]).repeat(6, 1)
    uniform = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2**-53], dtype=torch.float64)
    assert draw(probabilities, uniform).tolist() == [0, 0, 2, 2, 3, 3]


@given(
    weights=st.lists(st.sampled_from([0.0, 1e-30, 1e-7, 0.1, 1.0]), min_size=1, max_size=40),
    uniform=st.one_of(st.sampled_from([0.0, 1 - 2**-53]), st.floats(0, 1, exclude_max=True)),
)
@settings(max_examples=200, deadline=None)
def test_a_token_of_probability_zero_is_never_drawn(weights, uniform):
    if not any(weights):
        weights = [*weights, 1.0]
    row = torch.tensor([weights])
    token = draw(row, torch.tensor([uniform], dtype=torch.float64)).item()
    assert row[0, token] > 0


def test_nucleus_keeps_the_smallest_set_that_reaches_top_p():
    # Sorted: 0.5 (id 1), 0.25 (id 2), 0.125 (id 0), 0.125 (id 3).
    probabilities = torch.tensor([0.125, 0.5, 0.25, 0.125]).repeat(5, 1)
    top_p = torch.tensor([0.4, 0.5, 0.75, 0.76, 1.0], dtype=torch.float64)
    kept = [row.nonzero()[:, 0].tolist() for row in nucleus(probabilities, top_p)]
    # 0.76 needs one of the two tokens of 0.125: the lower id.
    assert kept == [[1], [1], [1, 2], [0, 1, 2], [0, 1, 2, 3]]


@given(
    logits=st.lists(st.floats(-8, 8), min_size=2, max_size=12),
    top_p=st.floats(0.01, 0.99),
)
@settings(max_examples=60, deadline=None)
def test_nucleus_agrees_with_a_loop_in_python(logits, top_p):
    probabilities = torch.tensor([logits]).softmax(-1)
    ordered = sorted(enumerate(probabilities[0].tolist()), key=lambda pair: -pair[1])
    expected, total = set(), 0.0
    for i, p in ordered:
        if total >= top_p:
            break
        expected.add(i)
        total += p
    is_kept = nucleus(probabilities, torch.tensor([top_p], dtype=torch.float64))
    assert set(is_kept[0].nonzero()[:, 0].tolist()) == expected


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.7, 0.7)])
def test_frequencies_follow_the_filtered_softmax(temperature, top_p):
    num_draws = 6000
    torch.manual_seed(0)
    logits = torch.randn(12, dtype=torch.float64)
    expected = (logits / temperature).softmax(-1)
    order = expected.argsort(descending=True)
    before = expected[order].cumsum(0) - expected[order]
    expected[order[before >= top_p]] = 0
    expected = expected / expected.sum()
    sampler = TokenSampler(
        [temperature] * num_draws, [top_p] * num_draws, list(range(num_draws)), torch.device("cpu")
    )
    for position in (0, 7):
        tokens, _ = sampler(logits.float().expand(num_draws, -1), torch.arange(num_draws), position)
        counts = torch.bincount(tokens, minlength=12).double()
        inside = expected > 0
        assert counts[~inside].sum() == 0
        mean = expected[inside] * num_draws
        chi_square = ((counts[inside] - mean) ** 2 / mean).sum().item()
        df = int(inside.sum()) - 1
        # Wilson-Hilferty: the 99.9% point of chi-square.
        assert chi_square < df * (1 - 2 / (9 * df) + 3.09 * math.sqrt(2 / (9 * df))) ** 3


def test_logps_are_before_top_p_and_greedy_ones_at_temperature_one():
    # softmax of [0, ln 2, ln 4, ln 8] = [1, 2, 4, 8] / 15; at temperature 1/2 it is
    # [1, 4, 16, 64] / 85. top_p 0.1 leaves only the last token in both.
    logits = torch.tensor([0.0, math.log(2), math.log(4), math.log(8)]).repeat(3, 1)
    sampler = TokenSampler([0.0, 1.0, 0.5], [1.0, 0.1, 0.1], [1, 2, 3], torch.device("cpu"))
    tokens, logps = sampler(logits, torch.arange(3), 0)
    assert tokens.tolist() == [3, 3, 3]
    expected = [math.log(8 / 15), math.log(8 / 15), math.log(64 / 85)]
    assert logps.tolist() == pytest.approx(expected, abs=1e-6)


def test_rounding_of_a_parallel_sum_cannot_draw_a_token_of_probability_zero(monkeypatch):
    # Sums in blocks need not be monotone in the last bit: here the token of probability 0 sits
    # above its neighbours, and the last sum is below an earlier one.
    sums = torch.tensor([[0.5, 0.5 + 2**-50, 1.0, 1.0 - 2**-50]], dtype=torch.float64)
    monkeypatch.setattr(torch.Tensor, "cumsum", lambda *args, **kwargs: sums.clone())
    row = torch.tensor([[0.5, 0.0, 0.5, 0.0]])
    for uniform, expected in [(0.5, 2), (1 - 2**-53, 2), (0.0, 0)]:
        assert draw(row, torch.tensor([uniform], dtype=torch.float64)).item() == expected
