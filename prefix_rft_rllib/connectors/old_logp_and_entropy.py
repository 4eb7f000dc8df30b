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
from prefix_rft_rllib.core.microbatches import microbatches, row_lengths

REFERENCE_LOGP = "reference_logp"
"""Column with the reference model's log-probabilities, if there is one."""


class OldLogpAndEntropy(ConnectorV2):
    """Adds `old_logp` and `entropy` of all rows by one pass without gradients.

    All rows take part, those without weight too: prefix tokens of every row are in the pool of the
    entropy selection (Prefix-RFT, Sec. 3). With a reference model its log-probabilities are added.

    Args:
        max_tokens_per_microbatch: Padded tokens of one forward pass.
        importance_weight_cap: Adds `importance_weight`, truncated here; None for none.
        num_passes: From this learner's number of forward passes, how many it shall make: where
            passes communicate, all learners make as many. Default: its own.
    """

    def __init__(
        self,
        *,
        max_tokens_per_microbatch: int,
        importance_weight_cap: float | None = None,
        num_passes: Callable[[int], int] = int,
    ) -> None:
        super().__init__()
        self._max_tokens = max_tokens_per_microbatch
        self._cap = importance_weight_cap
        self._num_passes = num_passes

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
        columns["old_logp"], columns["entropy"] = self._token_logps(module, columns)
        if self._cap is not None:
            columns["importance_weight"] = truncated_importance_weights(
                columns["old_logp"], columns["engine_logp"], self._cap
            )
        if module.reference is not None:
            columns[REFERENCE_LOGP], _ = self._token_logps(module, columns, reference=True)
        return batch

    @torch.no_grad()
    def _token_logps(
        self, module: Any, columns: dict[str, torch.Tensor], reference: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        input_ids, region = columns["input_ids"], columns["region"]
        logp = torch.zeros_like(input_ids, dtype=torch.float32)
        entropy = torch.zeros_like(logp)
        parts = microbatches(row_lengths(region), self._max_tokens)
        # The last part again, to the same values.
        parts += [parts[-1]] * (self._num_passes(len(parts)) - len(parts))
        for rows, width in parts:
            part = {"input_ids": input_ids[rows, :width], "region": region[rows, :width]}
            logp[rows, :width], entropy[rows, :width] = module.token_logps(
                part, reference=reference
            )
        return logp, entropy
