"""Any Hugging Face causal LM as an RLModule."""

import inspect
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

from prefix_rft_rllib.core.logprobs import logp_and_entropy
from prefix_rft_rllib.core.state_arrays import state_to_arrays, state_to_tensors
from prefix_rft_rllib.core.tokens import Region, next_token_targets, shift_to_targets

HF_MODEL_DIRECTORY = "hf"
"""Where a module checkpoint keeps the model in `save_pretrained` form."""


class DefaultPrefixRFTTorchRLModule(TorchRLModule):
    """A causal LM that gives log-probabilities and entropies of tokens.

    The Hugging Face model is `self.lm`, kept in evaluation mode: dropout would make the
    ratio of the first minibatch differ from 1. With `model_config["use_reference"]` a
    frozen copy of the initial model is kept for the KL term.

    `model_config` keys: `model_path` (directory), `temperature` (of the policy), `use_reference`,
    `compute_dtype` ("float32", or "bfloat16" for autocast over float32 weights),
    `entropy_gradient` (whether the entropy of a training pass is differentiable).
    """

    framework: str = "torch"

    @override(TorchRLModule)
    def setup(self) -> None:
        config = self.model_config
        self.lm: Any = _load_lm(config["model_path"])
        self.reference_lm: Any = None
        if config["use_reference"]:
            self.reference_lm = _load_lm(config["model_path"]).requires_grad_(False)
        self._limits_logits = "logits_to_keep" in inspect.signature(self.lm.forward).parameters
        self.train(False)

    @override(torch.nn.Module)
    def train(self, mode: bool = True) -> "DefaultPrefixRFTTorchRLModule":
        """Keep the LM in evaluation mode: a policy's log-probabilities have no dropout."""
        super().train(mode)
        for child in self.children():
            child.eval()
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
        is_padding = region == Region.PADDING
        is_target = ~is_padding & (region != Region.PROMPT)
        # Logits before the one that predicts the first target are not needed.
        start = max(0, int(is_target.any(0).int().argmax()) - 1)
        logits = self._logits(input_ids, ~is_padding, start=start, reference=reference)
        predictions = logp_and_entropy(
            logits[:, :-1],
            next_token_targets(input_ids[:, start:]),
            temperature=self.model_config["temperature"],
            entropy_grad=entropy_gradient and self.model_config["entropy_gradient"],
        )
        logp, entropy = (
            torch.nn.functional.pad(shift_to_targets(values), (start, 0)).masked_fill(~is_target, 0)
            for values in predictions
        )
        return logp, entropy

    def _logits(
        self, input_ids: torch.Tensor, attends: torch.Tensor, *, start: int, reference: bool
    ) -> torch.Tensor:
        """Logits of positions `start`.. of every row, (B, T - start, V)."""
        model = self.reference_lm if reference else self.lm
        num_kept = input_ids.shape[1] - start
        limit = {"logits_to_keep": num_kept} if self._limits_logits else {}
        with torch.autocast(
            input_ids.device.type,
            dtype=torch.bfloat16,
            enabled=self.model_config["compute_dtype"] == "bfloat16",
        ):
            logits = model(
                input_ids, attention_mask=attends.long(), use_cache=False, **limit
            ).logits
        return logits[:, -num_kept:]

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


def _load_lm(model_path: str) -> torch.nn.Module:
    """Load a causal LM with float32 weights; a checkpoint that lacks weights is an error."""
    from transformers import AutoModelForCausalLM

    # float32 master weights whatever the checkpoint's dtype: steps at lr 1e-6 vanish in bfloat16.
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        model_path, dtype=torch.float32, output_loading_info=True
    )
    model, report = loaded
    absent = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if absent:
        raise ValueError(
            f"`model_path` ({model_path!r}) lacks weights of its configuration: {absent[:3]} and "
            f"{len(absent)} in all. They would be random. Give a complete `save_pretrained` "
            "directory."
        )
    return model
