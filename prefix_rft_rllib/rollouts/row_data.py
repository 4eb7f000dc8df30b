"""What one rollout looks like as an RLlib episode, and how episodes reach the learners.

The prompt lies in the lookback buffer; actions are the response tokens, the given prefix first.
Everything per rollout travels in `episode.custom_data`; the keys are the constants below.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from prefix_rft_rllib.envs.verifiers.verdict import SCORED, Verdict

ROLLOUT = "rollout"
"""The planned `PlannedRollout` (problem, group, member, prefix length)."""
IS_DEMONSTRATION = "is_demonstration"
"""True for a whole demonstration added as a row: no token was sampled."""
IS_MEMBER = "is_member"
"""True for members of a group: rollouts, and demonstrations that count as one."""
VERDICT = "verdict"
"""Name of the verifier's verdict, or "SCORED"."""
VERDICT_DETAILS = "verdict_details"
"""What the verifier says beside the verdict: plain data by name, for people."""
FINISH_REASON = "finish_reason"
"""Why sampling ended: "stop" (end token) or "length" (budget)."""
WEIGHTS_SEQ_NO = "weights_seq_no"
"""Number of the weights that sampled the rollout."""
WEIGHT_STALENESS = "weight_staleness"
"""Updates between these weights and the ones that the update of the iteration starts from."""
ADVANTAGE = "advantage"
"""One number per rollout; set once the group is complete."""
ROW_INDEX = "row_index"
"""Position in the iteration's global row order."""
ROW_KEY = "row_key"
"""Non-negative 63-bit hash of (seed, iteration, group, member), for random selections."""
MINIBATCH = "minibatch"
"""Index of the global minibatch the row belongs to."""
IS_LOGGED = "is_logged"
"""Whether the learner reports this row's per-token values."""


def build_episode(
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    *,
    custom_data: Mapping[str, Any],
    reward: float = 0.0,
    logps: Sequence[float] | None = None,
    terminated: bool = True,
) -> SingleAgentEpisode:
    """Build a finished episode from token ids.

    Args:
        prompt_ids: Prompt token ids, at least one.
        response_ids: Response token ids, prefix included, at least one.
        custom_data: Per-rollout values under the keys of this module.
        reward: Reward of the last token.
        logps: The sampler's log-probabilities of the response tokens; NaN where nothing was
            sampled. None: all NaN.
        terminated: Whether the end token closed the response (else it was truncated).

    Returns:
        An episode of `len(response_ids)` steps. Observation = newest token, int32.
    """
    tokens = np.concatenate([prompt_ids, response_ids]).astype(np.int32)
    num_lookback = len(prompt_ids) - 1
    rewards = np.zeros(len(tokens) - 1, np.float32)
    rewards[-1] = reward
    all_logps = np.full(len(tokens) - 1, np.nan, np.float32)
    if logps is not None:
        all_logps[num_lookback:] = logps
    episode = SingleAgentEpisode(
        observations=tokens,
        actions=tokens[1:],
        rewards=rewards,
        infos=[{}] * len(tokens),
        extra_model_outputs={Columns.ACTION_LOGP: all_logps},
        terminated=terminated,
        truncated=not terminated,
        len_lookback_buffer=num_lookback,
    )
    episode.custom_data.update(custom_data)
    return episode


def is_solution(episode: SingleAgentEpisode) -> bool:
    """Whether the verifier accepted: CORRECT, or a number above 0 from one that gives numbers.

    Args:
        episode: A finished rollout.

    Returns:
        True for a solution.
    """
    verdict = episode.custom_data[VERDICT]
    return verdict == Verdict.CORRECT.name or (verdict == SCORED and episode.get_return() > 0)


def prompt_ids_of(episode: SingleAgentEpisode) -> np.ndarray:
    """Prompt token ids of an episode, (P,) int32."""
    return np.asarray(episode.observations.data[: episode.observations.lookback + 1])


def response_ids_of(episode: SingleAgentEpisode) -> np.ndarray:
    """Response token ids of an episode, prefix included, (R,) int32."""
    return np.asarray(episode.actions.data[episode.actions.lookback :])


def engine_logps_of(episode: SingleAgentEpisode) -> np.ndarray:
    """The sampler's log-probabilities of the response, (R,) float32, NaN where given."""
    logps = episode.extra_model_outputs[Columns.ACTION_LOGP]
    return np.asarray(logps.data[logps.lookback :])


def num_prefix_tokens_of(episode: SingleAgentEpisode) -> int:
    """Response tokens of an episode that were given, not sampled; 0 for a demonstration."""
    return episode.custom_data[ROLLOUT].num_prefix_tokens


def num_tokens_of(episode: SingleAgentEpisode) -> int:
    """Prompt and response tokens of an episode."""
    return len(episode.observations.data)


@dataclasses.dataclass
class WholeSequences(TrainingData):
    """Training data that is dealt to learners in whole sequences.

    RLlib's own sharding slices episodes to equalise time steps, which would cut a response from
    its prompt and its group.

    Attributes:
        keeps_groups: Whether learners compute a prompt once for all rows that have it: rows of one
            prompt then go to as few learners as balance allows.
    """

    keeps_groups: bool = False

    def shard(
        self, num_shards: int, len_lookback_buffer: int | None = None, **kwargs: Any
    ) -> list[tuple["WholeSequences", dict[str, Any]]]:
        """Deal the rows of every minibatch to the learners, balanced by tokens.

        Every learner gets at least one row of every minibatch, since all must take the same
        optimizer steps.
        """
        shards: list[list[SingleAgentEpisode]] = [[] for _ in range(num_shards)]
        minibatches: dict[int, list[SingleAgentEpisode]] = {}
        for episode in self.episodes:
            minibatches.setdefault(episode.custom_data[MINIBATCH], []).append(episode)
        for rows in minibatches.values():
            deals = [_deal(units, num_shards) for units in self._units_of(rows)]
            # Whole groups first, where the heaviest learner has no more of them.
            dealt, _ = min(deals, key=lambda deal: (not all(deal[0]), max(deal[1])))
            for shard, part in zip(shards, dealt, strict=True):
                shard.extend(part)
        for rows in shards:
            rows.sort(key=lambda e: e.custom_data[ROW_INDEX])
        return [
            (WholeSequences(episodes=rows, keeps_groups=self.keeps_groups), {}) for rows in shards
        ]

    def _units_of(self, rows: list[SingleAgentEpisode]) -> list[list[list[SingleAgentEpisode]]]:
        """Rows that stay together, in all ways to try: groups whole, in 2, in 4, ... parts."""
        rows = sorted(rows, key=lambda e: (-num_tokens_of(e), e.custom_data[ROW_INDEX]))
        if not self.keeps_groups:
            return [[[row] for row in rows]]
        groups: dict[bytes, list[SingleAgentEpisode]] = {}
        for row in rows:
            groups.setdefault(prompt_ids_of(row).tobytes(), []).append(row)
        ways, num_parts = [], 1
        while num_parts < 2 * max(map(len, groups.values())):
            parts = [rows[n::num_parts] for rows in groups.values() for n in range(num_parts)]
            ways.append([part for part in parts if part])
            num_parts *= 2
        return ways


def _deal(
    units: list[list[SingleAgentEpisode]], num_shards: int
) -> tuple[list[list[SingleAgentEpisode]], list[int]]:
    """Deal rows that stay together, the longest first to the lightest shard.

    Args:
        units: Rows that stay together; all have the same prompt, which counts once.
        num_shards: Number of shards.

    Returns:
        The rows of each shard, and its number of tokens. Shards without a row come first, so that
        none is left where there are enough units.
    """
    dealt: list[list[SingleAgentEpisode]] = [[] for _ in range(num_shards)]
    loads = [0] * num_shards
    for unit in sorted(units, key=_num_tokens_of_unit, reverse=True):
        target = min(range(num_shards), key=lambda i: (bool(dealt[i]), loads[i], i))
        dealt[target].extend(unit)
        loads[target] += _num_tokens_of_unit(unit)
    return dealt, loads


def _num_tokens_of_unit(unit: list[SingleAgentEpisode]) -> int:
    num_prompt = len(prompt_ids_of(unit[0]))
    return num_prompt + sum(num_tokens_of(row) - num_prompt for row in unit)
