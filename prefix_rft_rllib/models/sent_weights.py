"""A model's weights as arrays that processes share, for learners without the model's directory."""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from prefix_rft_rllib.engines.lm_of_config import lm_of_config, outline_of_config
from prefix_rft_rllib.engines.tied_weights import names_by_tensor
from prefix_rft_rllib.models.state_arrays import as_array, state_to_tensors

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class SentWeights:
    """Everything that a causal LM is built from beside its configuration.

    Attributes:
        arrays: Weights and buffers by name, each in the shortest type that loses nothing; bfloat16
            as uint16 views. They may be read-only.
        tied: Names of tied weights, and the name under which `arrays` has them.
        generation_config: As the model's directory has it.
    """

    arrays: Mapping[str, np.ndarray]
    tied: Mapping[str, str]
    generation_config: Any

    @classmethod
    def of(cls, lm: Any) -> "SentWeights":
        """The weights of a loaded model.

        Args:
            lm: A causal LM on the CPU with float32 weights.

        Returns:
            Its weights; those that cannot be shortened are the model's own memory.

        Raises:
            ValueError: If they do not fit the model of this configuration: the directory has
                more than a causal LM, an adapter for example.
        """
        arrays: dict[str, np.ndarray] = {}
        tied: dict[str, str] = {}
        state = lm.state_dict()
        for first, *others in names_by_tensor(state):
            arrays[first] = as_array(_shortest(state[first]))
            tied |= dict.fromkeys(others, first)
        sent = cls(arrays, tied, lm.generation_config)
        expected = outline_of_config(lm.config).state_dict()
        shapes = {name: tuple(value.shape) for name, value in expected.items()}
        found = {name: sent.array(name).shape for name in (*arrays, *tied)}
        differing = sorted(dict(shapes.items() ^ found.items()))
        if differing:
            raise ValueError(
                f"`model_path` ({lm.name_or_path!r}) does not hold the plain causal LM of its "
                f"configuration: {differing[:3]} and {len(differing)} in all differ. Merge "
                "adapters into the weights and save the model again."
            )
        return sent

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def array(self, name: str) -> np.ndarray:
        """The array of a weight, tied ones included."""
        return self.arrays[self.tied.get(name, name)]

    def build(self, config: "PretrainedConfig", attn_implementation: str | None = None) -> Any:
        """Build the model with float32 weights.

        Args:
            config: The model's configuration; not changed.
            attn_implementation: Attention of transformers; None for the model's own choice.

        Returns:
            The model, equal to one loaded from the directory.

        Raises:
            ImportError, ValueError: If the model does not have that attention here.
        """
        lm = lm_of_config(config, dtype=torch.float32, attn_implementation=attn_implementation)
        own = lm.state_dict()
        assert own.keys() == {*self.arrays, *self.tied}, "checked by the sender"
        for name, value in own.items():
            given = state_to_tensors({name: self.array(name)}, {name: value.dtype}, copy=False)
            value.copy_(given[name])
        lm.generation_config = copy.deepcopy(self.generation_config)
        return lm.eval()


_received: dict[str, tuple["PretrainedConfig", SentWeights]] = {}


@contextlib.contextmanager
def receive_weights(
    model_path: str, config: "PretrainedConfig", weights: SentWeights
) -> Iterator[None]:
    """Let `load_lm` build this model in this process, without reading a file, until the end.

    Args:
        model_path: The directory that the weights stand for; it need not be there.
        config: The model's configuration.
        weights: Its weights.
    """
    _received[model_path] = (config, weights)
    try:
        yield
    finally:
        del _received[model_path]


def build_received(model_path: str, attn_implementation: str | None) -> Any:
    """The model that was received for a directory; None if none was."""
    if model_path not in _received:
        return None
    config, weights = _received[model_path]
    return weights.build(config, attn_implementation)


def _shortest(value: Tensor) -> Tensor:
    """The values in 16 bits if that loses nothing, as those of a 16 bit checkpoint."""
    if value.dtype != torch.float32:
        return value
    for dtype in (torch.bfloat16, torch.float16):
        short = value.to(dtype)
        if torch.equal(short.to(torch.float32), value):
            return short
    return value
