"""What one update has to tell: sums for metrics, a record per minibatch, values per logged row."""

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from prefix_rft_rllib import metrics
from prefix_rft_rllib.core.losses import LossTerms
from prefix_rft_rllib.core.token_weights import PreparedWeights, TokenWeights, token_values
from prefix_rft_rllib.core.tokens import TokenColumns
from prefix_rft_rllib.learners.torch.collectives import LearnerCollectives

RATIO_SUMS = tuple(
    f"{name}/{part}"
    for name in (
        metrics.RATIO_PREFIX,
        metrics.RATIO_RESPONSE,
        metrics.RATIO_DEMONSTRATION,
        metrics.CLIP_FRACTION_PREFIX,
        metrics.CLIP_FRACTION_RESPONSE,
        metrics.CLIP_FRACTION_DEMONSTRATION,
    )
    for part in ("sum", "count")
)
"""Sums that a learner whose rows are all skipped never adds to."""


class UpdateReport:
    """Collects sums over the tokens of one `update()` call.

    Means are formed once, from sums over all learners, so that every learner reports the same
    numbers and nothing depends on how rows were dealt or cut into micro-batches.
    """

    def __init__(self) -> None:
        # All learners sum the same names, those without a token to count included.
        self._sums: dict[str, float | Tensor] = dict.fromkeys(RATIO_SUMS, 0.0)
        self._max_gap = torch.zeros(1)
        self.global_sums: dict[str, float] = defaultdict(float)
        self.minibatches: list[dict[str, Any]] = []
        self.rows: dict[int, dict[str, Any]] = {}

    def add(self, name: str, value: Tensor | float) -> None:
        """Add to a sum; tensors stay on their device until the end of the update."""
        self._sums[name] = self._sums.get(name, 0.0) + value

    def add_minibatch_columns(self, columns: TokenColumns, prepared: PreparedWeights) -> None:
        """Sums over the old-policy columns of this learner's rows of one minibatch."""
        assert columns.entropy is not None and columns.old_logp is not None
        kept = torch.zeros_like(columns.is_prefix)
        for rule in prepared.rules:
            if rule.rule.region == "prefix":
                kept |= rule.is_kept
        for name, values, mask in (
            (metrics.ENTROPY_PREFIX, columns.entropy, columns.is_prefix),
            (metrics.ENTROPY_PREFIX_KEPT, columns.entropy, kept),
            (metrics.ENTROPY_RESPONSE, columns.entropy, columns.is_response),
            (metrics.PREFIX_LOSS, -columns.old_logp, columns.is_prefix),
            (metrics.DEMONSTRATION_LOSS, -columns.old_logp, columns.is_demonstration),
        ):
            self._add_mean(name, values, mask)
        sampled = ~columns.engine_logp.isnan()
        gap = (columns.old_logp - columns.engine_logp).abs()
        self._add_mean(metrics.ENGINE_LOGP_GAP_MEAN, gap, sampled)
        if columns.importance_weight is not None:
            weight = columns.importance_weight
            self._add_mean(metrics.IMPORTANCE_WEIGHT_MEAN, weight, sampled)
            is_truncated = (columns.old_logp - columns.engine_logp).exp() > weight
            name = metrics.IMPORTANCE_WEIGHT_TRUNCATED_FRACTION
            self._add_mean(name, is_truncated.float(), sampled)
        largest = torch.where(sampled, gap, 0.0).max().reshape(1)
        self._max_gap = torch.maximum(self._max_gap.to(largest.device), largest)

    def add_microbatch(
        self, columns: TokenColumns, weights: TokenWeights, terms: LossTerms
    ) -> None:
        """Sums over the ratios of one micro-batch."""
        has_weight = weights.policy != 0
        for name, clip_name, region in (
            (metrics.RATIO_PREFIX, metrics.CLIP_FRACTION_PREFIX, columns.is_prefix),
            (metrics.RATIO_RESPONSE, metrics.CLIP_FRACTION_RESPONSE, columns.is_response),
            (
                metrics.RATIO_DEMONSTRATION,
                metrics.CLIP_FRACTION_DEMONSTRATION,
                columns.is_demonstration,
            ),
        ):
            mask = has_weight & region
            self._add_mean(name, terms.ratio, mask)
            self._add_mean(clip_name, terms.is_clipped.float(), mask)

    def add_minibatch(self, record: dict[str, Any], prepared: PreparedWeights) -> None:
        """Note one optimizer step; what the rules' selections kept is added to the record."""
        selections = [
            {
                "region": rule.rule.region,
                "keep": repr(rule.rule.keep),
                "num_region_tokens": rule.num_region_tokens,
                "num_kept_tokens": rule.num_kept_tokens,
            }
            for rule in prepared.rules
        ]
        self.minibatches.append({**record, "selections": selections})
        for rule in prepared.rules:
            if rule.rule.region == "prefix":
                self.global_sums[metrics.NUM_PREFIX_TOKENS] += rule.num_region_tokens
                self.global_sums[metrics.NUM_KEPT_PREFIX_TOKENS] += rule.num_kept_tokens
        is_finite = math.isfinite(record["grad_norm"]) and math.isfinite(record["loss"])
        self.global_sums[metrics.NUM_NONFINITE_STEPS] += not is_finite

    def add_rows(
        self,
        is_logged: Tensor,
        columns: TokenColumns,
        prepared: PreparedWeights,
        *,
        iteration: int,
    ) -> None:
        """Keep per-token values of the rows that are logged, response tokens only.

        The weight is what the rules' selections leave of a token's value at the old policy, before
        the scales: the advantage, for a rule that is worth the advantage.

        Args:
            is_logged: Rows to keep. Shape (B,), bool.
            columns: The rows, after the old-policy pass.
            prepared: Their weights.
            iteration: Training iteration, from 0.
        """
        assert columns.entropy is not None and columns.old_logp is not None
        weight = torch.zeros_like(columns.entropy)
        is_kept = torch.zeros_like(columns.is_prefix)
        for rule in prepared.rules:
            value = token_values(rule.rule, columns, iteration)
            factor = rule.rule.value.policy_factor(columns.old_logp)
            value = value if factor is None else value * factor
            weight += torch.where(rule.is_kept, value, 0.0).float()
            is_kept |= rule.is_kept
        for row in is_logged.nonzero()[:, 0].tolist():
            tokens = columns.is_answer[row]
            self.rows[int(columns.row_index[row])] = {
                "entropy": columns.entropy[row][tokens].tolist(),
                "old_logp": columns.old_logp[row][tokens].tolist(),
                "weight": weight[row][tokens].tolist(),
                "kept": is_kept[row][tokens].tolist(),
            }

    def _add_mean(self, name: str, values: Tensor, mask: Tensor) -> None:
        self.add(f"{name}/sum", torch.where(mask, values, 0.0).sum(dtype=torch.float64))
        self.add(f"{name}/count", mask.sum())

    def results(self, collectives: LearnerCollectives) -> dict[str, float]:
        """Metrics of the whole update over all learners; means without a token are left out.

        A collective: every learner calls it once per update.
        """
        names = sorted(self._sums)
        local = torch.tensor([float(self._sums[name]) for name in names], dtype=torch.float64)
        totals = dict(zip(names, collectives.sum_values(local).tolist(), strict=True))
        results = {name: value for name, value in totals.items() if "/" not in name}
        results |= self.global_sums
        num_left_out = int(self.global_sums[metrics.NUM_NONFINITE_STEPS])
        results[metrics.NUM_OPTIMIZER_STEPS] = len(self.minibatches) - num_left_out
        if metrics.KL_TO_REFERENCE in results:
            results[metrics.KL_TO_REFERENCE] /= len(self.minibatches)
        for name in ("loss", "grad_norm"):
            results[name] = sum(m[name] for m in self.minibatches) / len(self.minibatches)
        results[metrics.LEARNING_RATE] = self.minibatches[-1]["lr"]
        for name in [name[: -len("/sum")] for name in names if name.endswith("/sum")]:
            if totals[f"{name}/count"] > 0:
                results[name] = totals[f"{name}/sum"] / totals[f"{name}/count"]
        if metrics.ENGINE_LOGP_GAP_MEAN in results:
            results[metrics.ENGINE_LOGP_GAP_MAX] = float(
                collectives.max_values(self._max_gap.cpu())
            )
        return results
