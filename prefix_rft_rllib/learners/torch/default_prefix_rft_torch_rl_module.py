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
from ray.rllib.utils.annotations import DeveloperAPI, override

from prefix_rft_rllib.core.tokens import rows_of_observations
from prefix_rft_rllib.learners.torch.parallelism import Parallelism
from prefix_rft_rllib.models.causal_lm import checkpoint_activations, load_lm
from prefix_rft_rllib.models.state_arrays import state_to_arrays, state_to_tensors
from prefix_rft_rllib.models.token_scorer import TokenScorer, WithoutAdapters
from prefix_rft_rllib.models.trained_weights import trained_weights

HF_MODEL_DIRECTORY = "hf"
"""Where a module checkpoint keeps the model in `save_pretrained` form."""


@DeveloperAPI
class DefaultPrefixRFTTorchRLModule(TorchRLModule):
    """A causal LM that gives log-probabilities and entropies of tokens.

    The Hugging Face model is `self.lm`, kept in evaluation mode. With
    `model_config["use_reference"]` the initial model is kept for the KL term: a frozen copy, or
    with `lora` the model itself without its adapters. An `inference_only` module keeps none.

    An observation is that of `TokenEnv`: all tokens so far, right-padded with -1, which is what a
    causal LM needs to know. `forward_inference({"obs": ...})` gives the model's logits of the next
    token and `forward_exploration` those of the trained policy, divided by `temperature`; both are
    the inputs of a categorical distribution over the vocabulary. Rollouts do not come from here:
    a generation engine samples whole responses.

    `model_config` keys: `model_path` (directory), `temperature` (of the policy), `use_reference`,
    `compute_dtype` ("float32", or "bfloat16" for autocast over float32 weights),
    `entropy_gradient` (whether the entropy of a training pass is differentiable),
    `attn_implementation` (None: the model's choice), `packing` (rows without padding; None: where
    the attention has kernels for it), `share_prompts` (tokens that rows share are computed once;
    None: where that saves enough), `activation_checkpointing`, `lora` (keyword arguments of
    peft's `LoraConfig`, or None to train all weights), `seed` (of the adapters' first weights).
    """

    framework: str = "torch"

    @override(TorchRLModule)
    def setup(self) -> None:
        config = self.model_config
        self.parallelism: Parallelism = Parallelism()
        self.weights = trained_weights(self._load_lm(), config["lora"], seed=config["seed"])
        self.scorer = self._scorer_of(self.weights.lm)
        self.reference: TokenScorer | WithoutAdapters | None = None
        if config["use_reference"] and not self.inference_only:
            self.reference = self.weights.reference(
                self.scorer, lambda: self._scorer_of(self._load_lm().requires_grad_(False))
            )
        self.train(False)
        if config["activation_checkpointing"] and not self.inference_only:
            checkpoint_activations(self.lm)

    def _load_lm(self) -> Any:
        config = self.model_config
        lm = load_lm(config["model_path"], attn_implementation=config["attn_implementation"])
        return lm.eval()

    def _scorer_of(self, lm: Any) -> TokenScorer:
        config = self.model_config
        settings = {name: config[name] for name in ("temperature", "compute_dtype", "packing")}
        return TokenScorer(lm, share_prompts=config.get("share_prompts", False), **settings)

    @property
    def lm(self) -> Any:
        """The Hugging Face model that is trained."""
        return self.scorer.lm

    @property
    def min_saved_fraction(self) -> float | None:
        """Share of the tokens that shared prompts must save (`core.microbatches.passes_of`)."""
        return self.scorer.min_saved_fraction

    @property
    def scorers(self) -> list[TokenScorer]:
        """The models that this module holds: the trained one, and a frozen copy if there is one."""
        return [s for s in (self.scorer, self.reference) if isinstance(s, TokenScorer)]

    @override(torch.nn.Module)
    def train(self, mode: bool = True) -> "DefaultPrefixRFTTorchRLModule":
        """Leave the LM as it is, in evaluation mode: log-probabilities have no dropout."""
        self.training = mode
        return self

    @override(RLModule)
    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
        logp, entropy = self.scorer(
            batch["input_ids"],
            batch["region"],
            entropy_gradient=self.model_config["entropy_gradient"],
            shares_prompts=batch.get("shares_prompts", False),
        )
        return {Columns.ACTION_LOGP: logp, "entropy": entropy}

    @override(RLModule)
    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
        return {Columns.ACTION_DIST_INPUTS: self._next_token_logits(batch)}

    @override(RLModule)
    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
        logits = self._next_token_logits(batch)
        return {Columns.ACTION_DIST_INPUTS: logits / self.model_config["temperature"]}

    @torch.no_grad()
    def _next_token_logits(self, batch: dict[str, Any]) -> torch.Tensor:
        """Logits (B, V), float32, of the token after each observation; see the class."""
        observations = torch.as_tensor(batch[Columns.OBS], device=self.lm.device)
        input_ids, attends = rows_of_observations(observations)
        return self.scorer.next_token_logits(input_ids, attends)

    def token_logps(
        self, batch: dict[str, Any], *, reference: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of every token after the prompt; for a look without training.

        Args:
            batch: `input_ids` (B, T) int64 and `region` (B, T) int8, right-padded; and
                `shares_prompts` if tokens that rows share shall be computed once.
            reference: Use the frozen reference model.

        Returns:
            logp and entropy in nats, both (B, T) float32, of the policy at `temperature`. Each
            column describes the token at that position; prompt and padding are 0.
        """
        scorer = self.reference if reference else self.scorer
        assert scorer is not None
        return scorer(
            batch["input_ids"], batch["region"], shares_prompts=batch.get("shares_prompts", False)
        )

    @override(RLModule)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        inference_only: bool = False,
        **kwargs: Any,
    ) -> dict[str, np.ndarray]:
        """A copy of what is trained: the LM's state dict under its Hugging Face names.

        Tied weights are included. bfloat16 travels as a uint16 view (NumPy has no bfloat16);
        `set_state` and `state_to_tensors` turn it back, bit for bit. What stays as it is at
        `model_path` is not part of the state: the reference model and, with `lora`, the base
        model. Of a sharded module all learners must call this, and the first one has the answer.

        Args:
            components: Not used.
            not_components: Not used.
            inference_only: Weights for sampling: with `lora` those of the merged model.
            **kwargs: Not used.

        Returns:
            Arrays by name.
        """
        tensors = self.weights.merged() if inference_only else self.weights.state()
        return state_to_arrays(self.parallelism.gathered(tensors))

    @override(RLModule)
    def set_state(self, state: dict[str, np.ndarray]) -> None:
        own = self.weights.state()
        dtypes = {name: value.dtype for name, value in own.items()}
        tensors = state_to_tensors(state, dtypes, copy=False)  # `load` copies
        self.weights.load(self.parallelism.spread(tensors, own))

    @override(RLModule)
    def save_to_path(
        self, path: Any = None, *, state: Any = None, filesystem: Any = None, **kwargs: Any
    ) -> str:
        """Also write the saved weights in `save_pretrained` form into the `hf` folder.

        With `lora` that is the adapter in PEFT form. A checkpoint on a remote file system has no
        such folder.
        """
        state = state or self.get_state()
        saved = super().save_to_path(path, state=state, filesystem=filesystem, **kwargs)
        is_local = isinstance(filesystem or LocalFileSystem(), LocalFileSystem)
        if is_local and "://" not in str(path):
            self.weights.save_pretrained(Path(saved) / HF_MODEL_DIRECTORY, state_to_tensors(state))
        return saved
