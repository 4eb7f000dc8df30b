"""Which connector pieces run on a learner, and in which order."""

import contextlib
from typing import Any

from ray.rllib.core.learner.learner import Learner
from ray.rllib.utils.annotations import DeveloperAPI, override

from prefix_rft_rllib.learners.connectors.add_tokens_from_episodes_to_batch import (
    AddTokensFromEpisodesToBatch,
)
from prefix_rft_rllib.learners.connectors.old_logp_and_entropy import OldLogpAndEntropy


@DeveloperAPI
class PrefixRFTLearner(Learner):
    """Framework-free part of the learner: stops 7 and 8 of the path of the data."""

    @override(Learner)
    def build(self) -> None:
        shared = self.config.shared_inputs
        with shared.received_weights() if shared else contextlib.nullcontext():
            super().build()
        assert self._learner_connector is not None
        self._learner_connector.append(AddTokensFromEpisodesToBatch(device=self._device))
        self._learner_connector.append(
            OldLogpAndEntropy(
                max_tokens_per_microbatch=self.config.max_tokens_per_microbatch,
                importance_weight_cap=self.config.applied_importance_weight_cap,
                num_forward_passes=self.num_forward_passes,
                rows_without_old_policy_pass=self.rows_without_old_policy_pass,
            )
        )

    def num_forward_passes(self, own: int) -> int:
        """How many passes without gradients this learner makes.

        Args:
            own: How many its rows need.

        Returns:
            At least as many.
        """
        return own

    def rows_without_old_policy_pass(self, columns: dict[str, Any]) -> Any:
        """Rows that need no pass without gradients: their training pass comes before any step.

        Args:
            columns: All rows of an update.

        Returns:
            Shape (B,), bool.
        """
        raise NotImplementedError
