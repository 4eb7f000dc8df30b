"""A learner's weights, one after the other, for a direct transfer to the engines."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


class WeightMeta(NamedTuple):
    """What is known of a weight before it is sent."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class LearnerWeights:
    """The weights for sampling of a module: merged with `lora`, whole where learners share them.

    Args:
        module: A `DefaultPrefixRFTTorchRLModule`.
    """

    def __init__(self, module: Any) -> None:
        self._weights = module.weights
        self._metadata = [
            WeightMeta(name, value.dtype, tuple(value.shape))
            for name, value in self._weights.merged().items()
        ]

    def metadata(self) -> list[WeightMeta]:
        """All weights under their Hugging Face names, tied ones included, without their values."""
        return self._metadata

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value of each, on the learner's device.

        Shared weights are collected one by one: all learners must iterate at the same time.
        """
        for name, value in self._weights.merged().items():
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            yield name, whole.detach()
