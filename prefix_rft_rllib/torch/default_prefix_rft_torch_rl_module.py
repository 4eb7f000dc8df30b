"""Any Hugging Face causal LM as an RLModule."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyarrow.fs import LocalFileSystem
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.utils.annotations import override

from prefix_rft_rllib.core.head_logprobs import head_logp_and_entropy
from prefix_rft_rllib.core.logprobs import logp_and_entropy
from prefix_rft_rllib.core.state_arrays import state_to_arrays, state_to_tensors
from prefix_rft_rllib.core.tokens import Region, is_before_target
from prefix_rft_rllib.torch.causal_lm import (
    checkpoint_activations,
    has_plain_head,
    load_lm,
    packs_rows,
    run_rows,
)

HF_MODEL_DIRECTORY = "hf"
"""Where a module checkpoint keeps the model in `save_pretrained` form."""


class DefaultPrefixRFTTorchRLModule(TorchRLModule):
    """A causal LM that gives log-probabilities and entropies of tokens.

    The Hugging Face model is `self.lm`, kept in evaluation mode: dropout would make the
    ratio of the first minibatch differ from 1. With `model_config["use_reference"]` a
    frozen copy of the initial model is kept for the KL term.

    `model_config` keys: `model_path` (directory), `temperature` (of the policy), `use_reference`,
    `compute_dtype` ("float32", or "bfloat16" for autocast over float32 weights),
    `entropy_gradient` (whether the entropy of a training pass is differentiable),
    `attn_implementation` (None: the model's choice), `packing` (rows without padding; None: where
    the attention has kernels for it), `activation_checkpointing`.
    """

    framework: str = "torch"

    @override(TorchRLModule)
    def setup(self) -> None:
        config = self.model_config
        attention = config["attn_implementation"]
        self.lm: Any = load_lm(config["model_path"], attn_implementation=attention).eval()
        self.reference_lm: Any = None
        if config["use_reference"]:
            self.reference_lm = load_lm(config["model_path"], attn_implementation=attention)
            self.reference_lm.requires_grad_(False)
        self._has_plain_head = has_plain_head(self.lm)
        packing = config["packing"]
        self._packs = packs_rows(self.lm) if packing is None else packing
        self.train(False)
        if config["activation_checkpointing"]:
            checkpoint_activations(self.lm)

    @override(torch.nn.Module)
    def train(self, mode: bool = True) -> "DefaultPrefixRFTTorchRLModule":
        """Leave the LM as it is, in evaluation mode: log-probabilities have no dropout."""
        self.training = mode
        return self

    @override(RLModule)
    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
        logp, entropy = self.token_logps(batch, entropy_gradient=True)
        return {Columns.ACTION_LOGP: logp, "entropy": entropy}

    @override(RLModule)
    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        raise NotImplementedError(
            "Actions come from a generation engine (config.env_runners(engine=...)), "
            "not from the RLModule; only `forward_train` is defined."
        )

    def token_logps(
        self, batch: dict[str, Any], *, entropy_gradient: bool = False, reference: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of every token after the prompt.

        Args:
            batch: `input_ids` (B, T) int64 and `region` (B, T) int8, right-padded.
            entropy_gradient: Whether the entropy may carry a gradient (it does if the config
                has an entropy bonus).
            reference: Use the frozen reference model.

        Returns:
            logp and entropy in nats, both (B, T) float32, of the policy at `temperature`. Each
            column describes the token at that position; prompt and padding are 0.
        """
        input_ids, region = batch["input_ids"], batch["region"]
        attends = region != Region.PADDING
        is_target = attends & (region != Region.PROMPT)
        lm = self.reference_lm if reference else self.lm
        with torch.autocast(
            input_ids.device.type,
            dtype=torch.bfloat16,
            enabled=self.model_config["compute_dtype"] == "bfloat16",
        ):
            logp, entropy = self._target_logps(
                lm, input_ids, attends, is_target, entropy_gradient=entropy_gradient
            )
        logp, entropy = (
            torch.zeros_like(is_target, dtype=values.dtype).masked_scatter(is_target, values)
            for values in (logp, entropy)
        )
        return logp, entropy

    def _target_logps(
        self,
        lm: Any,
        input_ids: torch.Tensor,
        attends: torch.Tensor,
        is_target: torch.Tensor,
        *,
        entropy_gradient: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of the target tokens alone, row after row; shapes (N,)."""
        model = lm.base_model if self._has_plain_head else lm
        output = run_rows(model, input_ids, attends, packed=self._packs)
        before = is_before_target(attends, is_target, packed=self._packs)
        targets = input_ids[is_target]
        options = {
            "temperature": self.model_config["temperature"],
            "entropy_grad": entropy_gradient and self.model_config["entropy_gradient"],
        }
        if self._has_plain_head:
            head = lm.get_output_embeddings()
            hidden = output.last_hidden_state[before]
            return head_logp_and_entropy(hidden, head.weight, targets, bias=head.bias, **options)
        logits = output.logits[before]
        logp, entropy = logp_and_entropy(logits[None], targets[None], **options)
        return logp[0], entropy[0]

    @override(RLModule)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        inference_only: bool = False,
        **kwargs: Any,
    ) -> dict[str, np.ndarray]:
        """A copy of the LM's state dict under its Hugging Face names, tied weights included.

        bfloat16 travels as a uint16 view (NumPy has no bfloat16); `set_state` and
        `state_to_tensors` turn it back, bit for bit. The reference model is not part of the
        state: it is always the model at `model_path`.
        """
        return state_to_arrays(self.lm.state_dict())

    @override(RLModule)
    def set_state(self, state: dict[str, np.ndarray]) -> None:
        tensors = state_to_tensors(
            state, dtypes={k: v.dtype for k, v in self.lm.state_dict().items()}
        )
        self.lm.load_state_dict(tensors, strict=True)

    @override(RLModule)
    def save_to_path(
        self, path: Any = None, *, state: Any = None, filesystem: Any = None, **kwargs: Any
    ) -> str:
        """Also write the saved weights in `save_pretrained` form into the `hf` folder.

        A checkpoint on a remote file system has no such folder.
        """
        state = state or self.get_state()
        saved = super().save_to_path(path, state=state, filesystem=filesystem, **kwargs)
        is_local = isinstance(filesystem or LocalFileSystem(), LocalFileSystem)
        if is_local and "://" not in str(path):
            tensors = state_to_tensors(state)
            first_name: dict[int, str] = {}
            for name, value in self.lm.state_dict().items():
                # Tied weights share memory again: they are written once.
                tensors[name] = tensors[first_name.setdefault(value.data_ptr(), name)]
            self.lm.save_pretrained(Path(saved) / HF_MODEL_DIRECTORY, state_dict=tensors)
        return saved
