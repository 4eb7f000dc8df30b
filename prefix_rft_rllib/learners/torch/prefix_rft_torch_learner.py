"""One minibatch: weights, loss, optimizer step, metrics."""

import logging
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.annotations import DeveloperAPI, override

from prefix_rft_rllib import metrics
from prefix_rft_rllib.basics.random_draws import uniform
from prefix_rft_rllib.core.losses import entropy_bonus, kl_to_reference, policy_loss
from prefix_rft_rllib.core.microbatches import MicroBatch, passes_of
from prefix_rft_rllib.core.old_policy_pass import rows_without_old_policy_pass
from prefix_rft_rllib.core.token_weights import PreparedWeights, prepare_weights
from prefix_rft_rllib.core.tokens import TokenColumns
from prefix_rft_rllib.learners.connectors.add_tokens_from_episodes_to_batch import columns_from_dict
from prefix_rft_rllib.learners.connectors.old_logp_and_entropy import REFERENCE_LOGP
from prefix_rft_rllib.learners.prefix_rft_learner import PrefixRFTLearner
from prefix_rft_rllib.learners.torch.collectives import DistributedCollectives, LearnerCollectives
from prefix_rft_rllib.learners.torch.objectives_learner import ObjectivesLearner
from prefix_rft_rllib.learners.torch.update_report import UpdateReport
from prefix_rft_rllib.rollouts import row_data

logger = logging.getLogger(__name__)


class _Part(NamedTuple):
    """One micro-batch of the minibatch's rows, and whether it counts."""

    batch: MicroBatch
    counts: bool


@DeveloperAPI
class PrefixRFTTorchLearner(PrefixRFTLearner, ObjectivesLearner):
    """Trains on global minibatches of whole groups; knows weights, not methods."""

    @override(Learner)
    def build(self) -> None:
        super().build()
        # RLlib may have asked for deterministic algorithms. PyTorch then fills all new memory too,
        # which shows reads of memory never written and changes nothing else.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        several = self.config.num_learners > 1
        self._collectives = (
            DistributedCollectives(self._device) if several else LearnerCollectives()
        )
        self._max_response_tokens = self.config.max_response_tokens
        self._report = UpdateReport()
        self._schedule_iteration = 0
        self._step = 0

    @override(PrefixRFTLearner)
    def num_forward_passes(self, own: int) -> int:
        return self._parallelism.num_forward_passes(own, self._collectives)

    @override(PrefixRFTLearner)
    def rows_without_old_policy_pass(self, columns: dict[str, torch.Tensor]) -> torch.Tensor:
        """Rows of the first minibatch, whose training pass is the old policy's.

        Only those that are trained whatever that policy's values are: not the rows of a value that
        reads them, nor those among whose tokens a selection chooses, nor rows that are worth
        nothing. None at all if a later epoch or importance weights read the values.
        """
        config, minibatch = self.config, columns[row_data.MINIBATCH]
        if config.num_epochs > 1 or config.applied_importance_weight_cap is not None:
            return torch.zeros_like(minibatch, dtype=torch.bool)
        is_trained = rows_without_old_policy_pass(
            self._objective.rules, columns_from_dict(columns), self._schedule_iteration
        )
        return (minibatch == minibatch.min()) & is_trained

    @override(Learner)
    def _create_iterator_if_necessary(
        self,
        *,
        training_data: TrainingData,
        num_epochs: int = 1,
        iteration: int = 0,
        schedule_iteration: int | None = None,
        objective: str | None = None,
        **kwargs: Any,
    ) -> Iterator[MultiAgentBatch]:
        """Yield the global minibatches' rows that this learner holds, epoch by epoch.

        Every learner yields the same number of minibatches in the same order, which is a function
        of (seed, iteration, epoch). Schedules go by `schedule_iteration`, `iteration` by default;
        the objective is the method's first one by default.
        """
        self._schedule_iteration = iteration if schedule_iteration is None else schedule_iteration
        self._begin(objective or next(iter(self._objectives)))
        self._step = self._schedule_iteration * self.config.num_minibatches * num_epochs
        self._report = UpdateReport()
        batch = self._make_batch_if_necessary(training_data=training_data)
        rows = batch.policy_batches[DEFAULT_MODULE_ID]
        minibatch_of_row = rows[row_data.MINIBATCH]
        numbers = sorted(set(minibatch_of_row.tolist()))
        for epoch in range(num_epochs):
            key = ("minibatch_order", self.config.seed, iteration, epoch)
            for number in sorted(numbers, key=lambda n: uniform(*key, n) if epoch else n):
                index = (minibatch_of_row == number).nonzero()[:, 0]
                part = {name: rows[name][index] for name in rows}
                num_tokens = int((part["region"] != 0).sum())
                yield MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(part)}, env_steps=num_tokens)

    @override(TorchLearner)
    def _uncompiled_update(self, batch: dict[str, Any], **kwargs: Any) -> tuple[Any, Any, Any]:
        """One optimizer step on one global minibatch, in micro-batches of a token budget.

        Selections and scales come from the whole minibatch, before it is cut; the sum over
        micro-batches is the loss of the minibatch.
        """
        rows = batch[DEFAULT_MODULE_ID]
        columns = columns_from_dict(rows)
        prepared = prepare_weights(
            self._objective.rules,
            columns,
            max_response_tokens=self._max_response_tokens,
            iteration=self._schedule_iteration,
            collectives=self._collectives,
        )
        num_response_tokens = self._collectives.sum(int(columns.is_response.sum()))
        for parameter in self._params.values():
            parameter.grad = None
        loss = torch.zeros((), device=self._device)
        parts = self._microbatches(columns, prepared)
        for index, part in enumerate(parts):
            micro = {
                "weights": prepared.rows(part.batch.rows),
                "num_response_tokens": num_response_tokens,
                "counts": part.counts,
            }
            if REFERENCE_LOGP in rows:
                micro[REFERENCE_LOGP] = rows[REFERENCE_LOGP][part.batch.rows]
            is_last = index + 1 == len(parts)
            with self._parallelism.gradient_sync(self.module[DEFAULT_MODULE_ID], is_last=is_last):
                loss += self._backward(columns, part, micro)
        self._report.add_minibatch_columns(columns, prepared)
        total_loss = float(self._collectives.sum_values(torch.tensor(float(loss))))
        grad_norm = self._optimizer_step(total_loss)
        self._record(rows, columns, prepared, loss=total_loss, grad_norm=grad_norm)
        return {}, {DEFAULT_MODULE_ID: loss}, {}

    def _microbatches(self, columns: TokenColumns, prepared: PreparedWeights) -> list[_Part]:
        """Rows of the training pass; rows that cannot move the policy are left out.

        At least one micro-batch: a minibatch without any weight takes a step with zero gradient.
        And equally many on all learners, filled up with the first row at a loss of 0: needed where
        every pass communicates (a sharded module); DDP exchanges gradients in the last one only.
        """
        assert columns.old_logp is not None
        is_active = (prepared.active_rows() | columns.old_logp.isnan().any(dim=1)).cpu()
        if self.config.entropy_coeff > 0 or self.config.kl_coeff > 0:
            is_active = torch.ones_like(is_active)
        active = is_active.nonzero()[:, 0]
        self._report.add(metrics.NUM_TRAINED_ROWS, len(active))
        self._report.add(metrics.NUM_SKIPPED_ROWS, columns.num_rows - len(active))
        module = self.module[DEFAULT_MODULE_ID].unwrapped()
        batches = passes_of(
            columns.input_ids,
            columns.region,
            active,
            max_tokens=self.config.max_tokens_per_microbatch,
            min_saved_fraction=module.min_saved_fraction,
        )
        parts = [_Part(batch, counts=True) for batch in batches]
        num_tokens = int((~columns.is_padding[0]).sum())
        first_row = MicroBatch(torch.zeros(1, dtype=torch.int64), num_tokens)
        filler = _Part(first_row, counts=False)
        missing = max(1, self._collectives.max(len(parts))) - len(parts)
        return [filler] * missing + parts

    def _backward(self, columns: TokenColumns, part: _Part, micro: dict[str, Any]) -> torch.Tensor:
        """Forward and backward of one micro-batch; returns its share of the loss, detached."""
        tokens = part.batch.batch_of(columns.input_ids, columns.region)
        fwd_out = self.module.forward_train({DEFAULT_MODULE_ID: tokens})
        _fill_in(columns, part.batch, fwd_out[DEFAULT_MODULE_ID])
        micro["columns"] = columns.rows(part.batch.rows)
        losses = self.compute_losses(fwd_out=fwd_out, batch={DEFAULT_MODULE_ID: micro})
        loss = losses[DEFAULT_MODULE_ID]
        # Weights are global; DDP averages gradients over learners.
        (loss * self._collectives.size).backward()
        return loss.detach()

    @override(Learner)
    def compute_loss_for_module(
        self,
        *,
        module_id: str,
        config: AlgorithmConfig,
        batch: dict[str, Any],
        fwd_out: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        columns: TokenColumns = batch["columns"]
        missing = columns.input_ids.shape[1] - fwd_out[Columns.ACTION_LOGP].shape[1]
        logp = torch.nn.functional.pad(fwd_out[Columns.ACTION_LOGP], (0, missing))
        if not batch["counts"]:
            return logp.sum() * 0.0
        weights = batch["weights"].weights(logp)
        assert columns.old_logp is not None
        terms = policy_loss(
            weights,
            logp,
            columns.old_logp,
            self._objective.surrogate.completed_by(config.ppo_clip),
        )
        self._report.add_microbatch(columns, weights, terms)
        loss = terms.loss
        num_tokens = batch["num_response_tokens"]
        if config.entropy_coeff > 0:
            entropy = torch.nn.functional.pad(fwd_out["entropy"], (0, missing))
            bonus = entropy_bonus(entropy, columns.is_response, num_tokens)
            loss = loss - config.entropy_coeff * bonus
        if config.kl_coeff > 0:
            kl = kl_to_reference(logp, batch[REFERENCE_LOGP], columns.is_response, num_tokens)
            loss = loss + config.kl_coeff * kl
            self._report.add(metrics.KL_TO_REFERENCE, kl.detach())
        return loss

    def _optimizer_step(self, loss: float) -> float:
        """Clip and step, unless loss or gradient is not finite; returns its norm before clipping.

        All learners hold the same sum of losses and gradients: they step or leave out together.
        """
        gradients = {
            reference: parameter.grad
            for reference, parameter in self._params.items()
            if parameter.grad is not None
        }
        # RLlib's function for the norm turns NaN into 0.
        norm = self._parallelism.total_norm(gradients.values())
        for _, optimizer in self.get_optimizers_for_module(DEFAULT_MODULE_ID):
            self._set_optimizer_lr(optimizer, self._lr())
        self._step += 1
        if math.isfinite(norm) and math.isfinite(loss):
            self.apply_gradients(self.postprocess_gradients(gradients))
        else:
            logger.warning(
                "Loss %s, gradient norm %s: this optimizer step is left out.", loss, norm
            )
        return norm

    def _record(
        self,
        rows: dict[str, torch.Tensor],
        columns: TokenColumns,
        prepared: PreparedWeights,
        *,
        loss: float,
        grad_norm: float,
    ) -> None:
        """Note what this minibatch did, for metrics and for the rollout log."""
        optimizer = self.get_optimizers_for_module(DEFAULT_MODULE_ID)[0][1]
        lr = self._get_optimizer_lr(optimizer)
        self._report.add_minibatch(
            {
                "objective": self._objective.name,
                "minibatch": int(rows[row_data.MINIBATCH][0]),
                "step": self._step - 1,
                "loss": loss,
                "grad_norm": grad_norm,
                "lr": lr,
            },
            prepared,
        )
        self._report.add_rows(
            rows[row_data.IS_LOGGED], columns, prepared, iteration=self._schedule_iteration
        )

    def take_report(self) -> tuple[list[dict[str, Any]], dict[int, dict[str, Any]]]:
        """Records of the newest update's minibatches, and per-token values of its logged rows."""
        return self._report.minibatches, self._report.rows

    @override(TorchLearner)
    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Log the update's metrics: the same numbers on every learner.

        RLlib's own schedule over time steps is not stepped: `_optimizer_step` sets the rate.
        """
        for name, value in self._report.results(self._collectives).items():
            self.metrics.log_value((DEFAULT_MODULE_ID, name), value, reduce="mean")


def _fill_in(columns: TokenColumns, part: MicroBatch, fwd_out: dict[str, torch.Tensor]) -> None:
    """Complete rows that had no pass without gradients: their old policy is the one just run."""
    assert columns.old_logp is not None and columns.entropy is not None
    is_missing = columns.old_logp[part.rows].isnan().any(dim=1).cpu()
    rows = part.rows[is_missing]
    for column, name in ((columns.old_logp, Columns.ACTION_LOGP), (columns.entropy, "entropy")):
        column[rows] = 0.0
        column[rows, : part.width] = fwd_out[name].detach()[is_missing].to(column.dtype)
