"""State dicts as NumPy arrays: how weights travel between processes."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping

import numpy as np
import torch
from torch import Tensor


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
    arrays: dict[str, np.ndarray] = {}
    seen: dict[Hashable, np.ndarray] = {}
    for name, value in state_dict.items():
        memory = memory_of(name, value)
        if memory not in seen:
            seen[memory] = as_array(value.detach().cpu())
        arrays[name] = seen[memory]
    return arrays


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


def memory_of(name: str, value: Tensor) -> Hashable:
    """What is equal for the names of one tensor (tied weights) in a state dict."""
    return (value.data_ptr(), value.shape, value.stride()) if value.numel() else name


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
