"""Which prefix tokens the ablations train: same count, same sampled tokens, exact limits."""

import dataclasses
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.core.token_selection import All, BottomEntropy, Random, TopEntropy
from prefix_rft_rllib.methods import build
from tests.core.objective_cases import loss_and_gradient, moved_logp, objective_of, prepared
from tests.token_batches import batches, make_columns

FRACTION_SETTING = {
    "prefix_rft": "entropy_keep_fraction",
    "random_prefix": "keep_fraction",
    "bottom_entropy": "keep_fraction",
}


def with_fraction(name, fraction):
    return objective_of(name, **{FRACTION_SETTING[name]: fraction})


any_name = st.sampled_from(sorted(FRACTION_SETTING))


@settings(max_examples=40)
@given(batches(importance=True), st.integers(0, 100))
def test_top_bottom_and_random_keep_the_same_number_of_prefix_tokens(columns, percent):
    expected = math.ceil(Fraction(percent, 100) * int(columns.is_prefix.sum()))
    for name in FRACTION_SETTING:
        response, prefix = prepared(with_fraction(name, percent / 100), columns).rules
        assert int(prefix.is_kept.sum()) == prefix.num_kept_tokens == expected
        assert not (prefix.is_kept & ~columns.is_prefix).any()
        assert torch.equal(response.is_kept, columns.is_response)


@settings(max_examples=40)
@given(batches(importance=True), st.integers(0, 100), any_name, st.integers(0, 1000))
def test_a_selection_never_changes_sampled_tokens(columns, percent, name, seed):
    logp = moved_logp(columns, seed)
    reference = loss_and_gradient(objective_of("rft"), columns, logp)[1]
    grad = loss_and_gradient(with_fraction(name, percent / 100), columns, logp)[1]
    assert torch.equal(grad[columns.is_response], reference[columns.is_response])


@settings(max_examples=40)
@given(batches(importance=True), any_name, st.integers(0, 1000))
def test_fraction_one_updates_all_and_fraction_zero_freezes_bit_for_bit(columns, name, seed):
    logp = moved_logp(columns, seed)
    for fraction, limit in ((1.0, "update_all"), (0.0, "freeze_prefix")):
        ours = loss_and_gradient(with_fraction(name, fraction), columns, logp)
        theirs = loss_and_gradient(objective_of(limit), columns, logp)
        assert ours[0] == theirs[0]
        assert torch.equal(ours[1], theirs[1])
        if fraction == 0:
            assert not ours[1][columns.is_prefix].any()


def test_the_kinds_of_selection_differ():
    # Entropies 0, 0.5, ... of ten prefix tokens: the top and the bottom fifth are two each.
    columns = make_columns(["x" + "p" * 10 + "r"], [1.0], [[9, *(i / 2 for i in range(10)), 9]])
    kept = {
        name: prepared(with_fraction(name, 0.2), columns).rules[1].is_kept.nonzero()[:, 1].tolist()
        for name in FRACTION_SETTING
    }
    assert kept["prefix_rft"] == [9, 10]
    assert kept["bottom_entropy"] == [1, 2]
    assert len(kept["random_prefix"]) == 2


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("prefix_rft", TopEntropy(0.2)),
        ("prefix_rft_adaptive", TopEntropy(0.2)),
        ("uniform_schedule", TopEntropy(0.2)),
        ("random_prefix", Random(0.2)),
        ("bottom_entropy", BottomEntropy(0.2)),
        ("update_all", All()),
        ("freeze_prefix", None),
    ],
)
def test_the_ablations_differ_from_prefix_rft_in_the_selection_alone(name, keep):
    prefix_rft, method = build("prefix_rft"), build(name)
    response, prefix = prefix_rft.rules
    rules = (response,) if keep is None else (response, dataclasses.replace(prefix, keep=keep))
    assert method.rules == rules
    assert (method.advantage, method.surrogate) == (prefix_rft.advantage, prefix_rft.surrogate)
    if name not in ("prefix_rft_adaptive", "uniform_schedule"):
        assert method.prefix_sampler == prefix_rft.prefix_sampler
