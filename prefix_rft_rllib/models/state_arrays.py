"""State dicts as NumPy arrays: how weights travel between processes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from prefix_rft_rllib.engines.tied_weights import names_by_tensor


def state_to_arrays(state_dict: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Copy tensors to arrays.

    NumPy has no bfloat16: such tensors travel as uint16 views and come back bit for bit.

    Args:
        state_dict: Tensors by name, on any device.

    Returns:
        Arrays by name. Copies, also of CPU tensors: a state does not change with the next
        optimizer step.
    """
    copies = {name: value.detach().to("cpu", copy=True) for name, value in state_dict.items()}
    return {name: as_array(value) for name, value in copies.items()}


def state_views(state_dict: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """`state_to_arrays` without the copy, for who copies the arrays at once, as `ray.put` does.

    Args:
        state_dict: Tensors by name, on any device.

    Returns:
        Arrays by name, which change with the next optimizer step if the tensors are on the CPU.
        Names of one tensor (tied weights) have one array: `ray.put` writes it once.
    """
    array_of: dict[str, np.ndarray] = {}
    for names in names_by_tensor(state_dict):
        array_of |= dict.fromkeys(names, as_array(state_dict[names[0]].detach().cpu()))
    return {name: array_of[name] for name in state_dict}


def state_to_tensors(
    arrays: Mapping[str, np.ndarray],
    dtypes: Mapping[str, torch.dtype] | None = None,
    *,
    copy: bool = True,
) -> dict[str, Tensor]:
    """Undo `state_to_arrays`.

    Args:
        arrays: What `state_to_arrays` or `state_views` returned, or what the object store made of
            it.
        dtypes: Expected dtype by name; without it every uint16 array is bfloat16.
        copy: False for a caller that only reads the tensors: they share the arrays' memory, and
            the object store's is read-only.

    Returns:
        Tensors by name, on the CPU.
    """
    tensors = {}
    for name, value in arrays.items():
        tensor = torch.from_numpy(np.array(value, copy=True)) if copy else _view_of(value)
        wanted = dtypes.get(name) if dtypes else None
        if tensor.dtype == torch.uint16 and wanted in (None, torch.bfloat16, torch.float32):
            tensor = tensor.view(torch.bfloat16)
        tensors[name] = tensor
    return tensors


def as_array(value: Tensor) -> np.ndarray:
    """An array over a CPU tensor's memory; bfloat16 as a uint16 view."""
    is_bfloat16 = value.dtype == torch.bfloat16
    return (value.view(torch.uint16) if is_bfloat16 else value).numpy()


def _view_of(array: np.ndarray) -> Tensor:
    """A tensor over an array's memory."""
    with warnings.catch_warnings():
        # torch has no read-only tensors and warns of arrays that are; nobody writes to this one.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
