import hashlib

import numpy as np
import pytest
import torch

from prefix_rft_rllib.basics.random_draws import stable_hash, uniform
from prefix_rft_rllib.core.token_draws import hash_uniform


def test_hashes_are_the_same_on_every_machine():
    # Written down once; a change would change all plans of a given seed.
    assert stable_hash("rollout", 0, 1, "problem", 2) == 8210885469684306592
    digest = hashlib.blake2b(b"s7:rollouti1:0i1:1s7:problemi1:2", digest_size=8).digest()
    assert stable_hash("rollout", 0, 1, "problem", 2) == int.from_bytes(digest, "big") // 2


def test_hash_tells_keys_apart_that_a_plain_join_would_mix_up():
    keys = [("1", 2), (1, "2"), ("12",), (12,), (1, 2), ("1", "2"), ("", "12"), (-12,), ("1,2",)]
    assert len({stable_hash(*key) for key in keys}) == len(keys)


def test_hash_takes_numpy_integers_as_integers():
    assert stable_hash(np.int64(7), "a") == stable_hash(7, "a")


def test_hash_refuses_floats():
    with pytest.raises(TypeError):
        stable_hash(0.5)


def test_hashes_fit_int64_and_are_valid_seeds():
    values = [stable_hash("x", index) for index in range(1000)]
    assert min(values) >= 0
    assert max(values) < 2**63
    assert max(values) > 2**62
    torch.Generator().manual_seed(max(values))


def _check_uniform(draws):
    count = len(draws)
    ordered = np.sort(draws)
    assert ordered[0] >= 0
    assert ordered[-1] < 1
    # Kolmogorov-Smirnov: below 1.95 / sqrt(n) with probability 0.999.
    distance = np.abs(ordered - (np.arange(count) + 0.5) / count).max()
    assert distance < 1.95 / np.sqrt(count)
    # Neighbours are not correlated: |r| < 3.3 / sqrt(n) with probability 0.999.
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 3.3 / np.sqrt(count)


def test_draws_are_uniform_and_uncorrelated_over_iterations_and_members():
    _check_uniform(np.array([uniform("u", 0, step, "p", 0) for step in range(4000)]))
    _check_uniform(np.array([uniform("u", 0, 0, "p", member) for member in range(4000)]))
    _check_uniform(np.array([uniform("u", seed, 0, "p", 0) for seed in range(4000)]))


def test_hash_uniform_is_uniform_over_rows_and_over_positions():
    draws = hash_uniform(torch.arange(2000), 2000).numpy()
    for line in (draws[0], draws[1999], draws[:, 0], draws[:, 1999]):
        _check_uniform(line)
    assert abs(np.corrcoef(draws[0], draws[1])[0, 1]) < 3.3 / np.sqrt(2000)


def test_hash_uniform_agrees_with_a_plain_integer_loop():
    mask = 2**64 - 1

    def mix(state):
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        return state ^ (state >> 31)

    keys = [0, 1, 2**63 - 1, 123456789]
    draws = hash_uniform(torch.tensor(keys), 3)
    for row, key in enumerate(keys):
        for position in range(3):
            state = (mix(key) + (position + 1) * 0x9E3779B97F4A7C15) & mask
            assert draws[row, position].item() == (mix(state) >> 11) / 2**53


def test_more_padding_leaves_the_draws_as_they_are():
    key = torch.tensor([5, 6])
    assert torch.equal(hash_uniform(key, 4), hash_uniform(key, 9)[:, :4])
