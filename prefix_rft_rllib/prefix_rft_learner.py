"""Which connector pieces run on a learner, and in which order."""

from ray.rllib.core.learner.learner import Learner
from ray.rllib.utils.annotations import override

from prefix_rft_rllib.connectors.add_tokens_from_episodes_to_batch import (
    AddTokensFromEpisodesToBatch,
)
from prefix_rft_rllib.connectors.old_logp_and_entropy import OldLogpAndEntropy


class PrefixRFTLearner(Learner):
    """Framework-free part of the learner: stops 7 and 8 of the path of the data."""

    @override(Learner)
    def build(self) -> None:
        super().build()
        assert self._learner_connector is not None
        self._learner_connector.append(AddTokensFromEpisodesToBatch(device=self._device))
        self._learner_connector.append(
            OldLogpAndEntropy(
                max_tokens_per_microbatch=self.config.max_tokens_per_microbatch,
                importance_weight_cap=self.config.importance_weight_cap,
            )
        )
