"""The old-policy pass: its columns stand at their tokens, and the weights that follow from them."""

import math

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from prefix_rft_rllib.learners.connectors.add_tokens_from_episodes_to_batch import (
    columns_from_dict,
    columns_to_dict,
    token_columns_of,
)
from prefix_rft_rllib.learners.connectors.old_logp_and_entropy import (
    REFERENCE_LOGP,
    OldLogpAndEntropy,
)
from tests.learners.torch.learners import make_rows

PICTURES = ["xxpprrr", "xr", "xxxdd", "xxDDDD"]


class TableModule:
    """A module whose log probability and entropy at a token are functions of its id."""

    min_saved_fraction = None

    def __init__(self, reference=None):
        self.reference = reference
        self.widths = []

    def unwrapped(self):
        return self

    def token_logps(self, part, reference=False):
        self.widths.append(part["input_ids"].shape[1])
        values = part["input_ids"].float()
        return -values / (50 if reference else 100), values / 10


def look_back(*, module=None, **settings):
    """The batch's columns after the pass."""
    columns = token_columns_of(make_rows(PICTURES, [0.5, -0.5, 0.0, 0.25]))
    batch = {DEFAULT_MODULE_ID: columns_to_dict(columns)}
    piece = OldLogpAndEntropy(**{"max_tokens_per_microbatch": 100, **settings})
    modules = {DEFAULT_MODULE_ID: module or TableModule()}
    return piece(rl_module=modules, batch=batch, episodes=[])[DEFAULT_MODULE_ID]


@pytest.mark.parametrize("budget", [1, 7, 12, 100])
def test_every_rows_values_stand_at_its_own_tokens(budget):
    module = TableModule()
    columns = look_back(module=module, max_tokens_per_microbatch=budget)
    lengths = [len(picture) for picture in PICTURES]
    for row, length in enumerate(lengths):
        ids = columns["input_ids"][row, :length].float()
        assert torch.equal(columns["old_logp"][row, :length], -ids / 100)
        assert torch.equal(columns["entropy"][row, :length], ids / 10)
    # In micro-batches of the budget, the longest rows first: 7 | 6, 5 | 2 for 12 tokens.
    assert module.widths == sorted(module.widths, reverse=True)
    assert len(module.widths) == {1: 4, 7: 4, 12: 3, 100: 1}[budget]


def test_without_a_cap_there_is_no_importance_weight():
    columns = look_back()
    assert "importance_weight" not in columns
    assert columns_from_dict(columns).importance_weight is None
    assert REFERENCE_LOGP not in columns


def test_with_a_cap_sampled_tokens_are_weighed():
    columns = columns_from_dict(look_back(importance_weight_cap=1.25))
    weights = columns.importance_weight
    assert weights.dtype == torch.float32
    for row, picture in enumerate(PICTURES):
        for position in range(columns.region.shape[1]):
            is_sampled = position < len(picture) and picture[position] == "r"
            gap = (columns.old_logp - columns.engine_logp)[row, position].item()
            expected = min(math.exp(gap), 1.25) if is_sampled else 1.0
            assert weights[row, position].item() == pytest.approx(expected, rel=1e-6)
    assert len(set(weights[columns.is_response].tolist())) > 1


def test_a_reference_models_values_come_as_a_column_of_their_own():
    columns = look_back(module=TableModule(reference=object()))
    assert torch.equal(columns[REFERENCE_LOGP][0, :7], 2 * columns["old_logp"][0, :7])


def test_a_member_demonstration_is_a_demonstration_that_counts():
    columns = token_columns_of(make_rows(PICTURES, [0.5, -0.5, 0.0, 0.25]))
    assert columns.is_demonstration.any(dim=1).tolist() == [False, False, True, True]
    assert columns.is_member.tolist() == [True, True, False, True]
    assert columns.advantage.tolist() == [0.5, -0.5, 0.0, 0.25]
    assert bool(columns.engine_logp[2:].isnan().all())


def test_passes_are_filled_up_to_the_number_of_the_busiest_learner():
    module, alone = TableModule(), TableModule()
    columns = look_back(
        module=module, max_tokens_per_microbatch=12, num_forward_passes=lambda own: own + 2
    )
    expected = look_back(module=alone, max_tokens_per_microbatch=12)
    assert (len(alone.widths), len(module.widths)) == (3, 5)
    assert torch.equal(columns["old_logp"], expected["old_logp"])
    assert torch.equal(columns["entropy"], expected["entropy"])
