"""Check a state dict against a model, then copy it."""

from collections.abc import Mapping

import torch
from torch import nn

from prefix_rft_rllib.basics.text import first_of
from prefix_rft_rllib.engines.tied_weights import names_by_tensor

_MAX_NAMES_SHOWN = 8


def copy_weights(model: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Copy a state dict into a model's own tensors, cast to their type and device.

    Names that share one tensor in the model (tied embeddings) are one weight: any of them is
    enough, and if several are given they must agree.

    Raises:
        ValueError: For missing or unexpected names, wrong shapes, or tied names with different
            values. The model is unchanged then.
    """
    complete = complete_weights(model, state_dict)
    own = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for first, *_ in names_by_tensor(own):
            own[first].copy_(complete[first])


def complete_weights(
    model: nn.Module, state_dict: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Check a state dict against a model, which may be on the meta device.

    Args:
        model: A model with the right names, shapes and ties; its values do not matter.
        state_dict: What `copy_weights` accepts.

    Returns:
        The given tensors by name; of names that share one tensor all are there.

    Raises:
        ValueError: As for `copy_weights`.
    """
    own = model.state_dict(keep_vars=True)
    tied_names = names_by_tensor(own)
    shapes = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    problems = _shape_problems(own, tied_names, shapes)
    different = _different_ties(tied_names, state_dict)
    _refuse(model, problems | {"tied in the model but different here": different})
    complete: dict[str, torch.Tensor] = {}
    for names in tied_names:
        given = next(state_dict[name] for name in names if name in state_dict)
        complete |= dict.fromkeys(names, given)
    return complete


def check_shapes(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check names and shapes of weights against a model, which may be on the meta device.

    Args:
        model: A model with the right names, shapes and ties; its values do not matter.
        shapes: By name; of tied names one is enough.

    Raises:
        ValueError: For missing or unexpected names, or wrong shapes.
    """
    own = model.state_dict(keep_vars=True)
    _refuse(model, _shape_problems(own, names_by_tensor(own), shapes))


def _shape_problems(
    own: Mapping[str, torch.Tensor],
    tied_names: list[list[str]],
    given: Mapping[str, tuple[int, ...]],
) -> dict[str, list[str]]:
    return {
        "missing": [names[0] for names in tied_names if not any(name in given for name in names)],
        "unexpected": [name for name in given if name not in own],
        "wrong shape": [
            f"{name} is {given[name]} instead of {tuple(tensor.shape)}"
            for name, tensor in own.items()
            if name in given and given[name] != tensor.shape
        ],
    }


def _different_ties(tied_names: list[list[str]], given: Mapping[str, torch.Tensor]) -> list[str]:
    different = []
    for names in tied_names:
        first, *others = [name for name in names if name in given] or [""]
        different += [
            f"{first} and {other}"
            for other in others
            if given[first].shape == given[other].shape
            and not torch.equal(given[first], given[other])
        ]
    return different


def _refuse(model: nn.Module, problems: Mapping[str, list[str]]) -> None:
    """Raise if there are problems."""
    found = [
        f"{what}: {first_of(names, _MAX_NAMES_SHOWN)}" for what, names in problems.items() if names
    ]
    if found:
        raise ValueError(
            f"The state dict does not fit {type(model).__name__}, nothing was loaded: "
            f"{'; '.join(found)}. Pass the whole `state_dict()` of a model with the same "
            "configuration."
        )
