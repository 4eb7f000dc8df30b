"""Rollouts in numbers: metrics of an iteration, and records for the run directory."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import EPISODE_LEN_MEAN, EPISODE_RETURN_MEAN

from prefix_rft_rllib import metrics
from prefix_rft_rllib.core.prefix_schedules import Window
from prefix_rft_rllib.envs.verifiers.verdict import ISOLATION, NO_ISOLATION, SCORED, Verdict
from prefix_rft_rllib.iterations.groups import Group
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.runs.rollout_records import RolloutRecord


def rollout_metrics(groups: Sequence[Group], window: Window | None) -> dict[str, float]:
    """Metrics of one iteration's rollouts; see `metrics.py` for each key.

    Args:
        groups: Complete groups. Groups without rollouts count as groups only.
        window: The prefix window; None for a method without prefixes.

    Returns:
        Numbers by key; means over nothing are left out.
    """
    pairs = [pair for g in groups for pair in zip(g.planned, g.episodes, strict=True)]
    with_prefix = [(rollout, episode) for rollout, episode in pairs if rollout.has_prefix]
    plain = [episode for rollout, episode in pairs if not rollout.has_prefix]
    # A prefix may be cut to nothing: drawn, but the rollout starts from the prompt.
    drawn = [rollout for rollout, _ in pairs if rollout.prefix_fraction > 0]
    num_given = sum(rollout.num_prefix_tokens for rollout, _ in pairs)
    num_tokens = sum(len(episode) for _, episode in pairs)
    verdicts = Counter(episode.custom_data[row_data.VERDICT] for _, episode in pairs)
    means: dict[str, list[float]] = {
        metrics.REWARD_MEAN: [float(e.get_return()) for _, e in pairs],
        metrics.REWARD_PREFIX_MEAN: [float(e.get_return()) for _, e in with_prefix],
        metrics.REWARD_PLAIN_MEAN: [float(e.get_return()) for e in plain],
        metrics.PREFIX_FRACTION_MEAN: [r.prefix_fraction for r in drawn],
        metrics.PREFIX_TOKENS_DRAWN_MEAN: [r.drawn_prefix_tokens for r in drawn],
        metrics.PREFIX_TOKENS_MEAN: [r.num_prefix_tokens for r in drawn],
        metrics.RESPONSE_LENGTH_MEAN: [len(e) for _, e in pairs],
        metrics.TRUNCATED_FRACTION: [float(e.is_truncated) for _, e in pairs],
        metrics.WEIGHT_STALENESS_MEAN: [e.custom_data[row_data.WEIGHT_STALENESS] for _, e in pairs],
        metrics.PREFIX_TOKEN_FRACTION: [num_given / num_tokens] if num_tokens else [],
        metrics.PREFIX_WINDOW_LOW: [] if window is None else [window.low],
        metrics.PREFIX_WINDOW_HIGH: [] if window is None else [window.high],
        metrics.REWARD_DEMONSTRATION_MEAN: [r for g in groups for r in g.demonstration_rewards],
    }
    counts = {
        metrics.NUM_GROUPS: len(groups),
        metrics.NUM_GROUPS_WITH_SIGNAL: sum(group.has_signal for group in groups),
        metrics.NUM_ROLLOUTS: len(pairs),
        metrics.NUM_PREFIX_ROLLOUTS: len(with_prefix),
        metrics.NUM_PREFIXES_CUT: sum(rollout.was_cut for rollout in drawn),
        metrics.NUM_SAMPLED_TOKENS: num_tokens - num_given,
    }
    for name in [*(verdict.name for verdict in Verdict), SCORED]:
        counts[f"{metrics.VERDICTS}/{name}"] = verdicts[name]
    details = [episode.custom_data.get(row_data.VERDICT_DETAILS, {}) for _, episode in pairs]
    levels = [found[ISOLATION] for found in details if ISOLATION in found]
    if levels:
        counts[metrics.NUM_WITHOUT_ISOLATION] = levels.count(NO_ISOLATION)
    return counts | {name: sum(v) / len(v) for name, v in means.items() if v}


def episode_means(episodes: Sequence[SingleAgentEpisode]) -> dict[str, float]:
    """Mean return and mean length under RLlib's own keys, exact over all env runners.

    Args:
        episodes: All rollouts of an iteration.

    Returns:
        Numbers by key; none without rollouts.
    """
    values = {
        EPISODE_RETURN_MEAN: [episode.get_return() for episode in episodes],
        EPISODE_LEN_MEAN: [len(episode) for episode in episodes],
    }
    return {name: sum(v) / len(v) for name, v in values.items() if v}


def rollout_records(
    rows: Sequence[SingleAgentEpisode],
    token_values: dict[int, dict[str, Any]],
    *,
    iteration: int,
) -> list[RolloutRecord]:
    """Records of the logged rows.

    Args:
        rows: The iteration's rows with everything in `custom_data`.
        token_values: By row index: the learners' per-token values (`UpdateReport.rows`).
        iteration: Number of the iteration as in RLlib's results, from 1.

    Returns:
        One record per logged row, in their order.
    """
    records = []
    for episode in rows:
        data = episode.custom_data
        if not data[row_data.IS_LOGGED]:
            continue
        rollout = data[row_data.ROLLOUT]
        response_ids = row_data.response_ids_of(episode).tolist()
        records.append(
            RolloutRecord(
                iteration=iteration,
                problem_id=rollout.problem_id,
                group_id=rollout.group_id,
                member=rollout.member if data[row_data.IS_MEMBER] else None,
                demonstration_index=rollout.demonstration_index,
                prefix_fraction=rollout.prefix_fraction,
                drawn_prefix_tokens=rollout.drawn_prefix_tokens,
                num_prefix_tokens=rollout.num_prefix_tokens,
                was_cut=rollout.was_cut,
                window_low=rollout.window_low,
                window_high=rollout.window_high,
                reward=float(episode.get_return()),
                verdict=data.get(row_data.VERDICT),
                verdict_details=data.get(row_data.VERDICT_DETAILS) or None,
                finish_reason=data.get(row_data.FINISH_REASON),
                advantage=data[row_data.ADVANTAGE],
                weights_seq_no=data.get(row_data.WEIGHTS_SEQ_NO),
                weight_staleness=data.get(row_data.WEIGHT_STALENESS),
                minibatch=data[row_data.MINIBATCH],
                prompt_ids=row_data.prompt_ids_of(episode).tolist(),
                response_ids=response_ids,
                region=_regions(episode),
                engine_logp=row_data.engine_logps_of(episode).tolist(),
                **token_values[data[row_data.ROW_INDEX]],
            )
        )
    return records


def _regions(episode: SingleAgentEpisode) -> list[str]:
    if episode.custom_data[row_data.IS_DEMONSTRATION]:
        return ["demonstration"] * len(episode)
    num_prefix = row_data.num_prefix_tokens_of(episode)
    return ["prefix"] * num_prefix + ["response"] * (len(episode) - num_prefix)


def imitation_metrics(
    rows: Sequence[SingleAgentEpisode], steps: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Metrics of a separate step on failed problems.

    Args:
        rows: Its rows.
        steps: Records of its optimizer steps: one.

    Returns:
        Numbers by key.
    """
    (step,) = steps
    names = (metrics.LOSS, metrics.GRAD_NORM, metrics.LEARNING_RATE)
    return {metrics.NUM_ROWS: len(rows)} | {name: step[name] for name in names}
