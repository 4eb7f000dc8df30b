"""Which names of a model's weights are one weight."""

from collections.abc import Hashable, Mapping

from torch import Tensor


def names_by_tensor(state_dict: Mapping[str, Tensor]) -> list[list[str]]:
    """Group the names of a state dict by the tensor that they stand for.

    Tied weights, such as the embeddings of input and output in many causal LMs, have several names
    for one tensor. A view of the same memory in another order or type is another tensor.

    Args:
        state_dict: Tensors by name. On the meta device, where nothing has memory, names are of one
            tensor only if the very same object is given: use `state_dict(keep_vars=True)`.

    Returns:
        Lists of names, in the order of the state dict; most hold a single one.
    """
    names_of: dict[Hashable, list[str]] = {}
    for name, tensor in state_dict.items():
        names_of.setdefault(_identity(tensor), []).append(name)
    return list(names_of.values())


def _identity(tensor: Tensor) -> Hashable:
    if tensor.is_meta or not tensor.numel():
        return id(tensor)
    place = tensor.device, tensor.data_ptr()
    return *place, tensor.dtype, tensor.shape, tensor.stride()
