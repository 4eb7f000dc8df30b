"""Names of one tensor are found, with and without values."""

import pytest
import torch
from torch import nn

from prefix_rft_rllib.engines.tied_weights import names_by_tensor


def test_names_of_one_tensor_stand_together_in_their_order():
    shared, other = torch.arange(6.0).reshape(2, 3), torch.zeros(2, 3)
    state = {"embed": shared, "norm": other, "head": shared.detach(), "last": other.clone()}
    assert names_by_tensor(state) == [["embed", "head"], ["norm"], ["last"]]


def test_other_views_of_the_same_memory_are_other_tensors():
    square = torch.arange(4.0).reshape(2, 2)
    state = {"a": square, "order": square.T, "shape": square[0], "type": square.view(torch.int32)}
    assert names_by_tensor(state) == [["a"], ["order"], ["shape"], ["type"]]


def test_tensors_without_values_are_not_taken_for_one():
    # All have address 0.
    state = {"a": torch.zeros(0), "b": torch.zeros(0)}
    state |= {name: torch.empty(2, device="meta") for name in ("c", "d")}
    assert names_by_tensor(state) == [["a"], ["b"], ["c"], ["d"]]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_model_s_ties_are_found_where_it_has_no_values_too(device):
    with torch.device(device):
        model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    model["head"].weight = model["embed"].weight
    expected = [["embed.weight", "head.weight"]]
    assert names_by_tensor(model.state_dict(keep_vars=True)) == expected
