"""Log probabilities and entropies of a batch's tokens under a causal LM."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from prefix_rft_rllib.core.head_logprobs import head_logp_and_entropy
from prefix_rft_rllib.core.logprobs import logp_and_entropy
from prefix_rft_rllib.core.tokens import Region, is_before_target
from prefix_rft_rllib.models.causal_lm import (
    check_reads_packed_rows,
    has_plain_head,
    packs_rows,
    run_rows,
)
from prefix_rft_rllib.models.lora import switch_adapters


class TokenScorer(torch.nn.Module):
    """A causal LM and how it is run; the unit that is sharded over learners.

    Args:
        lm: A causal LM in evaluation mode; it stays so: dropout would make the ratio of the first
            minibatch differ from 1.
        temperature: Of the policy.
        compute_dtype: "float32", or "bfloat16" for autocast.
        packing: Rows without padding; None: where the attention has kernels for it.

    Raises:
        ValueError: If the rows shall be packed and the model mixes them up.
    """

    def __init__(
        self, lm: Any, *, temperature: float, compute_dtype: str, packing: bool | None
    ) -> None:
        super().__init__()
        self.lm = lm
        self.compute_dtype = compute_dtype
        self._temperature = temperature
        self._has_plain_head = has_plain_head(lm)
        self._packs = packs_rows(lm) if packing is None else packing
        if packing:
            check_reads_packed_rows(lm)

    def train(self, mode: bool = True) -> "TokenScorer":
        """Leave the LM as it is, in evaluation mode."""
        self.training = mode
        return self

    def forward(
        self, input_ids: torch.Tensor, region: torch.Tensor, *, entropy_gradient: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of every token after the prompt.

        Args:
            input_ids: Token ids, right-padded. Shape (B, T), int64.
            region: `Region` codes. Shape (B, T), int8.
            entropy_gradient: Whether the entropy carries a gradient.

        Returns:
            logp and entropy in nats, both (B, T) float32; prompt and padding are 0.
        """
        attends = region != Region.PADDING
        is_target = attends & (region != Region.PROMPT)
        with self._autocast(input_ids.device):
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
        targets = input_ids[is_target]
        options: dict[str, Any] = {
            "temperature": self._temperature,
            "entropy_grad": entropy_gradient,
        }
        if self._has_plain_head:
            head = self.lm.get_output_embeddings()
            hidden = output.last_hidden_state[before]
            return head_logp_and_entropy(hidden, head.weight, targets, bias=head.bias, **options)
        logits = output.logits[before]
        logp, entropy = logp_and_entropy(logits[None], targets[None], **options)
        return logp[0], entropy[0]


class WithoutAdapters:
    """The same model with its adapters switched off: the reference of a model trained by them.

    Args:
        scorer: Scorer of a causal LM with adapters.
    """

    def __init__(self, scorer: TokenScorer) -> None:
        self._scorer = scorer

    def __call__(
        self, input_ids: torch.Tensor, region: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `TokenScorer.forward`."""
        with self._switched_off():
            return self._scorer(input_ids, region)

    @contextlib.contextmanager
    def _switched_off(self) -> Iterator[None]:
        switch_adapters(self._scorer.lm, on=False)
        try:
            yield
        finally:
            switch_adapters(self._scorer.lm, on=True)
