"""Which weights of a causal LM are trained: all of them, or those of adapters (LoRA)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefix_rft_rllib.engines.tied_weights import names_by_tensor
from prefix_rft_rllib.models.causal_lm import save_lm
from prefix_rft_rllib.models.lora import add_adapters, is_adapter, lora_config, save_adapter
from prefix_rft_rllib.models.token_scorer import TokenScorer, WithoutAdapters


class TrainedWeights:
    """All weights of a causal LM.

    Args:
        lm: A causal LM.
    """

    def __init__(self, lm: Any) -> None:
        self.lm = lm

    def state(self) -> dict[str, Tensor]:
        """The weights that a checkpoint holds, by name; not copied."""
        return self.lm.state_dict()

    def merged(self) -> dict[str, Tensor]:
        """The weights of the plain model, under its Hugging Face names."""
        return self.lm.state_dict()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the weights of a checkpoint.

        Args:
            tensors: All weights of `state`, by name.

        Raises:
            RuntimeError: For other names or shapes.
        """
        self.lm.load_state_dict(tensors, strict=True)

    def reference(
        self, scorer: TokenScorer, build_frozen: Callable[[], TokenScorer]
    ) -> TokenScorer | WithoutAdapters:
        """The initial model beside the trained one.

        Args:
            scorer: Scorer of the trained model.
            build_frozen: Makes the scorer of a frozen copy.

        Returns:
            What gives the initial model's log probabilities.
        """
        return build_frozen()

    def save_pretrained(self, directory: Path, tensors: dict[str, Tensor]) -> None:
        """Write weights in Hugging Face form.

        Args:
            directory: Where to; made if missing.
            tensors: The weights, as `state` gives them, on the CPU.
        """
        first_name: dict[Any, str] = {}
        for name, value in self.lm.named_parameters(remove_duplicate=False):
            # Tied weights share memory again: they are written once.
            tensors[name] = tensors[first_name.setdefault(value, name)]
        save_lm(self.lm, directory, state_dict=tensors)


class AdapterWeights(TrainedWeights):
    """The adapters of a causal LM whose own weights stay as they are.

    Args:
        lm: A causal LM; adapters are added to it.
        settings: Keyword arguments of peft's `LoraConfig`.
        seed: Of the adapters' first weights.

    Raises:
        ValueError: If the settings are refused (`lora_config`) or do not fit the model.
    """

    def __init__(self, lm: Any, settings: Mapping[str, Any], *, seed: int) -> None:
        super().__init__(lm)
        self.config = lora_config(settings)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                add_adapters(lm, self.config)
        except ValueError as error:
            raise ValueError(f"`lora` ({dict(settings)!r}) does not fit the model: {error}") from (
                error
            )
        lm.eval()
        tied = [names for names in names_by_tensor(lm.state_dict(keep_vars=True)) if len(names) > 1]
        if any(".base_layer." in name for names in tied for name in names):
            raise ValueError(
                f"`lora` ({dict(settings)!r}) adapts an embedding that input and output share. "
                "Leave it out of `target_modules`."
            )

    def state(self) -> dict[str, Tensor]:
        """The adapters' weights, by name; not copied."""
        return {name: value for name, value in self.lm.state_dict().items() if is_adapter(name)}

    @torch.no_grad()
    def merged(self) -> dict[str, Tensor]:
        """The weights with the adapters' contribution, under the plain model's names."""
        from peft.tuners.lora import LoraLayer

        merged = {}
        for name, value in self.lm.state_dict().items():
            if not is_adapter(name):
                merged[name.replace(".base_layer.", ".")] = value
        for name, layer in self.lm.named_modules():
            if isinstance(layer, LoraLayer):
                # A copy, one layer at a time: taking an adapter out again would round the base.
                copied: Any = copy.deepcopy(layer)
                copied.merge()
                for key, value in copied.get_base_layer().state_dict().items():
                    merged[f"{name}.{key}"] = value
        return merged

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the adapters of a checkpoint; the base model stays."""
        own = self.state()
        if own.keys() != tensors.keys():
            raise RuntimeError(
                f"The state holds other weights than this model's adapters: {len(tensors)} "
                f"instead of {len(own)}, e.g. {sorted(own.keys() ^ tensors.keys())[:3]}. `lora` "
                "must be what it was when the state was saved."
            )
        self.lm.load_state_dict(tensors, strict=False)

    def reference(
        self, scorer: TokenScorer, build_frozen: Callable[[], TokenScorer]
    ) -> TokenScorer | WithoutAdapters:
        """The model itself without its adapters; no second copy."""
        return WithoutAdapters(scorer)

    def save_pretrained(self, directory: Path, tensors: dict[str, Tensor]) -> None:
        """Write the adapter in PEFT form."""
        save_adapter(directory, self.config, tensors)


def trained_weights(lm: Any, lora: Mapping[str, Any] | None, *, seed: int) -> TrainedWeights:
    """What of a model is trained.

    Args:
        lm: A causal LM; changed in place if it gets adapters.
        lora: Keyword arguments of peft's `LoraConfig`, or None to train all weights.
        seed: Of the adapters' first weights.

    Returns:
        The weights.

    Raises:
        ValueError: See `AdapterWeights`.
    """
    return TrainedWeights(lm) if lora is None else AdapterWeights(lm, lora, seed=seed)
