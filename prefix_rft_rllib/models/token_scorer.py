"""Log probabilities and entropies of a batch's tokens under a causal LM."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch

from prefix_rft_rllib.core.head_logprobs import head_logp_and_entropy
from prefix_rft_rllib.core.logprobs import logp_and_entropy
from prefix_rft_rllib.core.prefix_tree import prefix_tree
from prefix_rft_rllib.core.tokens import Region, is_before_target
from prefix_rft_rllib.models.causal_lm import (
    check_reads_packed_rows,
    has_plain_head,
    packs_rows,
    run_rows,
)
from prefix_rft_rllib.models.lora import switch_adapters
from prefix_rft_rllib.models.shared_attention import run_tree, switch_to_trees

logger = logging.getLogger(__name__)

_MIN_SAVED_FRACTION = 0.2
"""Share of tokens from which on `share_prompts=None` shares prompts."""


class TokenScorer(torch.nn.Module):
    """A causal LM and how it is run; the unit that is sharded over learners.

    Args:
        lm: A causal LM in evaluation mode; it stays so: dropout would make the ratio of the first
            minibatch differ from 1.
        temperature: Of the policy.
        compute_dtype: "float32", or "bfloat16" for autocast.
        packing: Rows without padding; None: where the attention has kernels for it.
        share_prompts: Whether rows may be run with the tokens that they share computed once; None:
            if the model can.

    Raises:
        ValueError: If the rows shall be packed and the model mixes them up, or if they shall share
            prompts and the model cannot.
    """

    def __init__(
        self,
        lm: Any,
        *,
        temperature: float,
        compute_dtype: str,
        packing: bool | None,
        share_prompts: bool | None = False,
    ) -> None:
        super().__init__()
        self.lm = lm
        self.compute_dtype = compute_dtype
        self._temperature = temperature
        self._has_plain_head = has_plain_head(lm)
        self._packs = packs_rows(lm) if packing is None else packing
        if packing:
            check_reads_packed_rows(lm)
        self.min_saved_fraction = self._prepare_sharing(share_prompts)

    def _prepare_sharing(self, share_prompts: bool | None) -> float | None:
        """Switch the model's attention if rows may share prompts.

        Returns:
            Share of the padded tokens that it must save (`core.microbatches.passes_of`).
        """
        if share_prompts is False or (share_prompts is None and self._packs):
            return None
        try:
            switch_to_trees(self.lm)
        except ValueError as error:
            if share_prompts:
                raise ValueError(
                    f"`share_prompts=True` is not possible: {error} Leave it out."
                ) from error
            logger.info("Every row computes its prompt (`share_prompts=None`): %s", error)
            return None
        return 0.0 if share_prompts else _MIN_SAVED_FRACTION

    def train(self, mode: bool = True) -> "TokenScorer":
        """Leave the LM as it is, in evaluation mode."""
        self.training = mode
        return self

    def forward(
        self,
        input_ids: torch.Tensor,
        region: torch.Tensor,
        *,
        entropy_gradient: bool = False,
        shares_prompts: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of every token after the prompt.

        Args:
            input_ids: Token ids, right-padded. Shape (B, T), int64.
            region: `Region` codes. Shape (B, T), int8.
            entropy_gradient: Whether the entropy carries a gradient.
            shares_prompts: Whether tokens that rows share, from their beginning on, are computed
                once; not with `min_saved_fraction` None.

        Returns:
            logp and entropy in nats, both (B, T) float32; prompt and padding are 0.
        """
        attends = region != Region.PADDING
        is_target = attends & (region != Region.PROMPT)
        with self._autocast(input_ids.device):
            if shares_prompts:
                values = self._of_nodes(input_ids, region, is_target, entropy_gradient)
            else:
                values = self._of_targets(input_ids, attends, is_target, entropy_gradient)
        logp, entropy = (
            torch.zeros_like(is_target, dtype=value.dtype).masked_scatter(is_target, value)
            for value in values
        )
        return logp, entropy

    def next_token_logits(self, input_ids: torch.Tensor, attends: torch.Tensor) -> torch.Tensor:
        """The model's logits of the token after each row, before any temperature.

        Args:
            input_ids: Token ids, right-padded. Shape (B, T), int64.
            attends: False at padding. Shape (B, T), bool.

        Returns:
            Shape (B, V), float32.
        """
        is_last = attends & ~torch.nn.functional.pad(attends[:, 1:], (0, 1))
        if self._packs:
            is_last = is_last[attends][None]
        with self._autocast(input_ids.device):
            output = run_rows(self._model, input_ids, attends, packed=self._packs)
            if self._has_plain_head:
                head = self.lm.get_output_embeddings()
                return head(output.last_hidden_state[is_last]).float()
            return output.logits[is_last].float()

    @property
    def _model(self) -> Any:
        """What is run: the backbone where the head is applied apart."""
        return self.lm.base_model if self._has_plain_head else self.lm

    def _autocast(self, device: torch.device) -> torch.autocast:
        is_on = self.compute_dtype == "bfloat16"
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_on)

    def _of_targets(
        self,
        input_ids: torch.Tensor,
        attends: torch.Tensor,
        is_target: torch.Tensor,
        entropy_gradient: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of the target tokens alone, row after row; shapes (N,)."""
        output = run_rows(self._model, input_ids, attends, packed=self._packs)
        before = is_before_target(attends, is_target, packed=self._packs)
        states = output[0][before]
        return self._from_states(states, input_ids[is_target], entropy_gradient)

    def _of_nodes(
        self,
        input_ids: torch.Tensor,
        region: torch.Tensor,
        is_target: torch.Tensor,
        entropy_gradient: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same with tokens that rows share computed once, those at the head too."""
        tree = prefix_tree(input_ids, region)
        nodes, node_of_target = tree.node[is_target].unique(return_inverse=True)
        output = run_tree(self._model, input_ids, tree)
        states = output[0][0].index_select(0, tree.parents[nodes])
        targets = input_ids.flatten()[tree.place[nodes]]
        logp, entropy = self._from_states(states, targets, entropy_gradient)
        return logp[node_of_target], entropy[node_of_target]

    def _from_states(
        self, states: torch.Tensor, targets: torch.Tensor, entropy_gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of tokens from what the model gives at the token before.

        Args:
            states: Hidden states (N, D), or logits (N, V) of a model whose head is not plain.
            targets: The tokens. Shape (N,), int64.
            entropy_gradient: Whether the entropy carries a gradient.
        """
        options: dict[str, Any] = {
            "temperature": self._temperature,
            "entropy_grad": entropy_gradient,
        }
        if self._has_plain_head:
            head = self.lm.get_output_embeddings()
            return head_logp_and_entropy(states, head.weight, targets, bias=head.bias, **options)
        logp, entropy = logp_and_entropy(states[None], targets[None], **options)
        return logp[0], entropy[0]


class WithoutAdapters:
    """The same model with its adapters switched off: the reference of a model trained by them.

    Args:
        scorer: Scorer of a causal LM with adapters.
    """

    def __init__(self, scorer: TokenScorer) -> None:
        self._scorer = scorer

    def __call__(
        self, input_ids: torch.Tensor, region: torch.Tensor, *, shares_prompts: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `TokenScorer.forward`."""
        with self._switched_off():
            return self._scorer(input_ids, region, shares_prompts=shares_prompts)

    @contextlib.contextmanager
    def _switched_off(self) -> Iterator[None]:
        switch_adapters(self._scorer.lm, on=False)
        try:
            yield
        finally:
            switch_adapters(self._scorer.lm, on=True)
