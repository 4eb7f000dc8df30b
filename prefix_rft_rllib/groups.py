"""Groups: the plan of an iteration, and complete groups as rows for the learners."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from prefix_rft_rllib.connectors import episodes as row_data
from prefix_rft_rllib.core.prefix_sampling import GroupSpec, Rollout, plan_group
from prefix_rft_rllib.core.problem_order import problem_indices
from prefix_rft_rllib.core.random_draws import stable_hash, uniform
from prefix_rft_rllib.envs.problems import Problem
from prefix_rft_rllib.methods import Method
from prefix_rft_rllib.prefix_rft_config import PrefixRFTConfig


@dataclass
class Group:
    """One problem of one iteration: its planned rollouts and what became of them.

    Attributes:
        group_id: Number of the group in the iteration.
        problem: The problem.
        rollouts: The planned attempts, in the order of their members.
        demonstration_indices: Demonstrations that become rows of their own.
        episodes: The finished attempts, in the order of `rollouts`; empty until sampled.
    """

    group_id: int
    problem: Problem
    rollouts: list[Rollout]
    demonstration_indices: list[int]
    episodes: list[SingleAgentEpisode] = field(default_factory=list)

    @property
    def rewards(self) -> list[float]:
        """Reward of every rollout."""
        return [float(episode.get_return()) for episode in self.episodes]

    @property
    def has_signal(self) -> bool:
        """Whether the rewards differ: else every advantage is 0."""
        return len(set(self.rewards)) > 1


def plan_groups(
    config: PrefixRFTConfig,
    method: Method,
    problems: Sequence[Problem],
    answer_cut: Callable[[str, int], int | None],
    iteration: int,
) -> list[Group]:
    """Plan one iteration: problems, prefix lengths, demonstration rows.

    A pure function of its arguments: the plan is the same for any number of env runners and after
    a restore.

    Args:
        config: The run's settings.
        method: Its method.
        problems: The training problems.
        answer_cut: Tokens of a demonstration (problem id, index) before its answer; None: no cut.
        iteration: Training iteration, from 0.

    Returns:
        One group per problem of the iteration.
    """
    groups = []
    occurrences: Counter[str] = Counter()
    max_response_tokens = config.max_response_tokens
    indices = problem_indices(
        len(problems), config.num_problems_per_iteration, iteration, config.seed
    )
    for group_id, index in enumerate(indices):
        problem = problems[index]
        spec = GroupSpec(
            seed=config.seed,
            iteration=iteration,
            group_id=group_id,
            problem_id=problem.problem_id,
            num_rollouts=method.num_rollouts(config.group_size),
            demonstration_lengths=[len(ids) for ids in problem.demonstrations],
            answer_cut=partial(answer_cut, problem.problem_id),
            max_response_tokens=max_response_tokens,
            occurrence=occurrences[problem.problem_id],
        )
        occurrences[problem.problem_id] += 1
        rows = method.demonstration_rows.indices(
            seed=config.seed,
            iteration=iteration,
            problem_id=problem.problem_id,
            num_demonstrations=len(problem.demonstrations),
        )
        rollouts = plan_group(method.prefix_sampler, spec) if spec.num_rollouts else []
        groups.append(Group(group_id, problem, rollouts, rows))
    return groups


def learner_rows(
    config: PrefixRFTConfig, method: Method, groups: Sequence[Group], iteration: int
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
        _credit(method, group)
        for episode in [*group.episodes, *_demonstration_episodes(method, group)]:
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


def _credit(method: Method, group: Group) -> None:
    """Write every rollout's advantage."""
    if not group.episodes:
        return
    has_prefix = [rollout.has_prefix for rollout in group.rollouts]
    advantages = method.advantage(group.rewards, has_prefix)
    for episode, advantage in zip(group.episodes, advantages, strict=True):
        episode.custom_data[row_data.ADVANTAGE] = advantage
        episode.custom_data[row_data.IS_MEMBER] = True


def _demonstration_episodes(method: Method, group: Group) -> list[SingleAgentEpisode]:
    """The group's demonstration rows: whole demonstrations, nothing sampled."""
    problem = group.problem
    return [
        row_data.build_episode(
            problem.prompt_ids,
            problem.demonstrations[index],
            custom_data={
                row_data.ROLLOUT: Rollout(
                    problem_id=problem.problem_id,
                    group_id=group.group_id,
                    member=len(group.rollouts) + number,
                    seed=0,
                    demonstration_index=index,
                ),
                row_data.NUM_PREFIX_TOKENS: 0,
                row_data.IS_DEMONSTRATION: True,
                row_data.ADVANTAGE: 0.0,
                row_data.IS_MEMBER: method.demonstration_rows.is_member,
            },
        )
        for number, index in enumerate(group.demonstration_indices)
    ]


def _logged_groups(config: PrefixRFTConfig, groups: Sequence[Group]) -> set[int]:
    """Groups to log in full: those with signal first, so that weights are there to be seen."""
    ranked = sorted(groups, key=lambda group: (not group.has_signal, group.group_id))
    return {group.group_id for group in ranked[: config.num_logged_groups]}


def in_groups(groups: Sequence[Group], episodes: Sequence[SingleAgentEpisode]) -> None:
    """Put finished episodes into their groups.

    Args:
        groups: The planned groups.
        episodes: All their episodes, in the order of the plan.
    """
    remaining: list[Any] = list(episodes)
    for group in groups:
        count = len(group.rollouts)
        group.episodes, remaining = remaining[:count], remaining[count:]
    assert not remaining, "more episodes than planned rollouts"
