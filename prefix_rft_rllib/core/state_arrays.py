"""State dicts as NumPy arrays: how weights travel between processes."""

from __future__ import annotations

from collections.abc import Mapping

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
    arrays = {}
    for name, value in state_dict.items():
        copied = value.detach().to("cpu", copy=True)
        is_bfloat16 = copied.dtype == torch.bfloat16
        arrays[name] = (copied.view(torch.uint16) if is_bfloat16 else copied).numpy()
    return arrays


def state_to_tensors(
    arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, torch.dtype] | None = None
) -> dict[str, Tensor]:
    """Undo `state_to_arrays`.

    Args:
        arrays: What `state_to_arrays` returned.
        dtypes: Expected dtype by name; without it every uint16 array is bfloat16.

    Returns:
        Tensors by name, on the CPU. Copies: the object store hands out read-only arrays.
    """
    tensors = {}
    for name, value in arrays.items():
        tensor = torch.from_numpy(np.array(value, copy=True))
        wanted = dtypes.get(name) if dtypes else None
        if tensor.dtype == torch.uint16 and wanted in (None, torch.bfloat16, torch.float32):
            tensor = tensor.view(torch.bfloat16)
        tensors[name] = tensor
    return tensors
