import warnings

import numpy as np
import pytest
import torch

from prefix_rft_rllib.models.state_arrays import state_to_arrays, state_to_tensors, state_views


def tied_state(dtype=torch.float32):
    weight = torch.arange(6.0).view(2, 3).to(dtype)
    return {"embed": weight, "norm": torch.ones(3, dtype=dtype), "head": weight}


def test_arrays_are_copies_and_views_are_not():
    state = tied_state()
    copies, views = state_to_arrays(state), state_views(state)
    state["norm"].add_(1.0)
    assert copies["norm"].tolist() == [1, 1, 1]
    assert views["norm"].tolist() == [2, 2, 2]


def test_tied_weights_are_one_array_for_the_object_store():
    views = state_views(tied_state())
    assert views["embed"] is views["head"]
    assert views["embed"] is not views["norm"]


def test_empty_tensors_keep_their_names_and_shapes():
    views = state_views({"a": torch.zeros(0, 3), "b": torch.zeros(2, 0)})
    assert {name: value.shape for name, value in views.items()} == {"a": (0, 3), "b": (2, 0)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("copy", [True, False])
def test_tensors_come_back_bit_for_bit(dtype, copy):
    state = tied_state(dtype)
    returned = state_to_tensors(state_views(state), copy=copy)
    assert returned.keys() == state.keys()
    for name, tensor in returned.items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, state[name])
        assert (tensor.data_ptr() == state[name].data_ptr()) != copy


def test_read_only_arrays_are_viewed_without_a_warning():
    array = np.ones(3, np.float32)
    array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = state_to_tensors({"a": array}, copy=False)["a"]
    assert tensor.data_ptr() == array.ctypes.data
