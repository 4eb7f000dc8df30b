"""Episodes to token columns."""

from typing import Any

import numpy as np
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.annotations import override

from prefix_rft_rllib.core.tokens import Region, TokenColumns, pad_rows
from prefix_rft_rllib.rollouts import row_data

PER_ROW_COLUMNS = (row_data.MINIBATCH, row_data.IS_LOGGED)
"""Columns of the batch beside those of `TokenColumns`, one value per row."""


class AddTokensFromEpisodesToBatch(ConnectorV2):
    """Turns whole episodes into the columns of `TokenColumns`, plus minibatch and log marks.

    Args:
        device: Where the columns shall be.
    """

    def __init__(self, *, device: torch.device) -> None:
        super().__init__()
        self._device = device

    @override(ConnectorV2)
    def __call__(
        self,
        *,
        rl_module: RLModule,
        batch: dict[str, Any],
        episodes: list[SingleAgentEpisode],
        **kwargs: Any,
    ) -> dict[str, Any]:
        token_columns = token_columns_of(episodes).to(self._device)
        batch[DEFAULT_MODULE_ID] = columns_to_dict(token_columns) | {
            name: torch.tensor([e.custom_data[name] for e in episodes], device=self._device)
            for name in PER_ROW_COLUMNS
        }
        return batch


def columns_to_dict(token_columns: TokenColumns) -> dict[str, torch.Tensor]:
    """The columns by name, for an RLlib batch; absent ones left out."""
    return {name: value for name, value in vars(token_columns).items() if value is not None}


def columns_from_dict(batch: Any) -> TokenColumns:
    """The inverse of `columns_to_dict`; other keys of the batch are passed over."""
    fields = TokenColumns.__dataclass_fields__
    return TokenColumns(**{name: batch[name] for name in fields if name in batch})


def token_columns_of(episodes: list[SingleAgentEpisode]) -> TokenColumns:
    """Right-padded columns of whole episodes, in their order, on the CPU.

    Args:
        episodes: Finished episodes with all `custom_data` of `rollouts.row_data`.

    Returns:
        Columns without `old_logp` and `entropy`.
    """
    custom = [episode.custom_data for episode in episodes]
    prompts = [row_data.prompt_ids_of(episode) for episode in episodes]
    responses = [row_data.response_ids_of(episode) for episode in episodes]
    logps = [row_data.engine_logps_of(episode) for episode in episodes]
    tokens = [np.concatenate(pair) for pair in zip(prompts, responses, strict=True)]
    regions = [
        _region_codes(len(prompt), len(response), episode)
        for prompt, response, episode in zip(prompts, responses, episodes, strict=True)
    ]
    engine_logps = [
        np.concatenate([np.full(len(prompt), np.nan), logp])
        for prompt, logp in zip(prompts, logps, strict=True)
    ]
    return TokenColumns(
        input_ids=pad_rows(tokens, pad_value=0, dtype=torch.int64),
        region=pad_rows(regions, pad_value=Region.PADDING, dtype=torch.int8),
        advantage=torch.tensor([d[row_data.ADVANTAGE] for d in custom], dtype=torch.float32),
        reward=torch.tensor([_reward_of(e) for e in episodes], dtype=torch.float32),
        row_index=torch.tensor([d[row_data.ROW_INDEX] for d in custom], dtype=torch.int64),
        row_key=torch.tensor([d[row_data.ROW_KEY] for d in custom], dtype=torch.int64),
        is_member=torch.tensor([d[row_data.IS_MEMBER] for d in custom], dtype=torch.bool),
        engine_logp=pad_rows(engine_logps, pad_value=float("nan"), dtype=torch.float32),
    )


def _reward_of(episode: SingleAgentEpisode) -> float:
    """The episode's reward; NaN for a demonstration that nobody graded."""
    data = episode.custom_data
    is_graded = data[row_data.IS_MEMBER] or not data[row_data.IS_DEMONSTRATION]
    return float(episode.get_return()) if is_graded else float("nan")


def _region_codes(num_prompt: int, num_response: int, episode: SingleAgentEpisode) -> np.ndarray:
    """Region of every token of one row, (num_prompt + num_response,) int8."""
    codes = np.full(num_prompt + num_response, Region.RESPONSE, np.int8)
    codes[:num_prompt] = Region.PROMPT
    if episode.custom_data[row_data.IS_DEMONSTRATION]:
        codes[num_prompt:] = Region.DEMONSTRATION
    else:
        num_prefix = row_data.num_prefix_tokens_of(episode)
        codes[num_prompt : num_prompt + num_prefix] = Region.PREFIX
    return codes
