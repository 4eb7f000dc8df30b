"""Credit: complete groups get their advantages and become rows for the learners."""

from collections.abc import Sequence

from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from prefix_rft_rllib.basics.random_draws import stable_hash, uniform
from prefix_rft_rllib.core.prefix_sampling import PlannedRollout
from prefix_rft_rllib.iterations.groups import Group
from prefix_rft_rllib.methods import Method
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.settings.settings import Settings


def learner_rows(
    config: Settings, method: Method, groups: Sequence[Group], iteration: int
) -> list[SingleAgentEpisode]:
    """Credit complete groups and deal them to global minibatches.

    Args:
        config: The run's settings.
        method: Its method.
        groups: The iteration's groups with their episodes.
        iteration: Training iteration, from 0.

    Returns:
        All rows, rollouts and demonstration rows, with everything the learners need in
        `custom_data`.
    """
    key = ("minibatches", config.seed, iteration)
    order = sorted(range(len(groups)), key=lambda i: uniform(*key, i))
    minibatch_of = {i: rank // config.num_problems_per_minibatch for rank, i in enumerate(order)}
    logged = _logged_groups(config, groups)
    rows: list[SingleAgentEpisode] = []
    for number, group in enumerate(groups):
        demonstrations = _demonstration_episodes(group, _credit(method, group))
        for episode in [*group.episodes, *demonstrations]:
            rollout = episode.custom_data[row_data.ROLLOUT]
            episode.custom_data.update(
                {
                    row_data.ROW_INDEX: len(rows),
                    row_data.ROW_KEY: stable_hash(
                        "row", config.seed, iteration, group.group_id, rollout.member
                    ),
                    row_data.MINIBATCH: minibatch_of[number],
                    row_data.IS_LOGGED: rollout.prefix_fraction > 0 or group.group_id in logged,
                }
            )
            rows.append(episode)
    return rows


def _credit(method: Method, group: Group) -> list[float]:
    """Write every rollout's advantage; returns those of the demonstrations that are members."""
    if not group.episodes:
        return []
    num_demonstrations = len(group.demonstration_rewards)
    has_prefix = [rollout.has_prefix for rollout in group.planned] + [True] * num_demonstrations
    advantages = method.advantage(group.member_rewards, has_prefix)
    num_rollouts = len(group.episodes)
    for episode, advantage in zip(group.episodes, advantages[:num_rollouts], strict=True):
        episode.custom_data[row_data.ADVANTAGE] = advantage
        episode.custom_data[row_data.IS_MEMBER] = True
    return advantages[num_rollouts:]


def _demonstration_episodes(
    group: Group, advantages: Sequence[float] = ()
) -> list[SingleAgentEpisode]:
    """The group's demonstration rows: whole demonstrations, nothing sampled.

    Those of members come with their advantages; other rows have none.
    """
    problem = group.problem
    is_member = bool(advantages)
    return [
        row_data.build_episode(
            problem.prompt_ids,
            problem.demonstration_ids[index],
            reward=group.demonstration_rewards[number] if is_member else 0.0,
            custom_data={
                row_data.ROLLOUT: PlannedRollout(
                    problem_id=problem.problem_id,
                    group_id=group.group_id,
                    member=len(group.planned) + number,
                    seed=0,
                    demonstration_index=index,
                ),
                row_data.IS_DEMONSTRATION: True,
                row_data.ADVANTAGE: advantages[number] if is_member else 0.0,
                row_data.IS_MEMBER: is_member,
            },
        )
        for number, index in enumerate(group.demonstration_indices)
    ]


def _logged_groups(config: Settings, groups: Sequence[Group]) -> set[int]:
    """Groups to log in full: those with signal first, so that weights are there to be seen."""
    ranked = sorted(groups, key=lambda group: (not group.has_signal, group.group_id))
    return {group.group_id for group in ranked[: config.num_logged_groups]}


def imitation_rows(
    config: Settings, groups: Sequence[Group], iteration: int
) -> list[SingleAgentEpisode]:
    """The rows of a separate step on demonstrations: one global minibatch.

    Args:
        config: The run's settings.
        groups: Groups of demonstration rows.
        iteration: Training iteration, from 0.

    Returns:
        The rows, with everything the learners need in `custom_data`.
    """
    rows = [episode for group in groups for episode in _demonstration_episodes(group)]
    for number, episode in enumerate(rows):
        episode.custom_data.update(
            {
                row_data.ROW_INDEX: number,
                row_data.ROW_KEY: stable_hash("imitation", config.seed, iteration, number),
                row_data.MINIBATCH: 0,
                row_data.IS_LOGGED: False,
            }
        )
    return rows
