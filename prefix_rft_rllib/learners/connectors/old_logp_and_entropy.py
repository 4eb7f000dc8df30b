"""The old-policy pass: log-probabilities and entropies before the update."""

from collections.abc import Callable
from typing import Any

import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.annotations import override

from prefix_rft_rllib.core.importance_weights import truncated_importance_weights
from prefix_rft_rllib.core.microbatches import passes_of

REFERENCE_LOGP = "reference_logp"
"""Column with the reference model's log-probabilities, if there is one."""


def _no_row(columns: dict[str, Any]) -> torch.Tensor:
    return torch.zeros(len(columns["region"]), dtype=torch.bool)


class OldLogpAndEntropy(ConnectorV2):
    """Adds `old_logp` and `entropy` of all rows by one pass without gradients.

    Rows without weight take part too: prefix tokens of every row are ranked by the entropy
    selection (Prefix-RFT, Sec. 3). With a reference model its log-probabilities are added.

    Args:
        max_tokens_per_microbatch: Computed tokens of one forward pass.
        importance_weight_cap: Adds `importance_weight`, truncated here; None for none.
        num_passes: From this learner's number of forward passes, how many it shall make: where
            passes communicate, all learners make as many. Default: its own.
        rows_without_old_policy_pass: From the columns, which rows are left out, shape (B,), bool:
            their values are NaN until their training pass gives them. Default: none.
    """

    def __init__(
        self,
        *,
        max_tokens_per_microbatch: int,
        importance_weight_cap: float | None = None,
        num_forward_passes: Callable[[int], int] = int,
        rows_without_old_policy_pass: Callable[[dict[str, Any]], torch.Tensor] = _no_row,
    ) -> None:
        super().__init__()
        self._max_tokens = max_tokens_per_microbatch
        self._cap = importance_weight_cap
        self._num_passes = num_forward_passes
        self._rows_without_old_policy_pass = rows_without_old_policy_pass

    @override(ConnectorV2)
    def __call__(
        self,
        *,
        rl_module: RLModule,
        batch: dict[str, Any],
        episodes: list[SingleAgentEpisode],
        **kwargs: Any,
    ) -> dict[str, Any]:
        module = rl_module[DEFAULT_MODULE_ID].unwrapped()
        columns = batch[DEFAULT_MODULE_ID]
        is_left_out = self._rows_without_old_policy_pass(columns).cpu()
        columns["old_logp"], columns["entropy"] = self._token_logps(module, columns, is_left_out)
        if self._cap is not None:
            columns["importance_weight"] = truncated_importance_weights(
                columns["old_logp"], columns["engine_logp"], self._cap
            )
        if module.reference is not None:
            columns[REFERENCE_LOGP], _ = self._token_logps(
                module, columns, _no_row(columns), reference=True
            )
        return batch

    @torch.no_grad()
    def _token_logps(
        self,
        module: Any,
        columns: dict[str, torch.Tensor],
        is_left_out: torch.Tensor,
        *,
        reference: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        input_ids, region = columns["input_ids"], columns["region"]
        logp = torch.zeros_like(input_ids, dtype=torch.float32)
        logp[is_left_out] = torch.nan
        entropy = logp.clone()
        wanted = (~is_left_out).nonzero()[:, 0]
        parts = passes_of(
            input_ids,
            region,
            wanted,
            max_tokens=self._max_tokens,
            min_saved_fraction=module.min_saved_fraction,
        )
        for _ in range(self._num_passes(len(parts)) - len(parts)):
            first = {"input_ids": input_ids[:1], "region": region[:1]}
            module.token_logps(first, reference=reference)
        for part in parts:
            logp[part.rows, : part.width], entropy[part.rows, : part.width] = module.token_logps(
                part.batch_of(input_ids, region), reference=reference
            )
        return logp, entropy
