"""When the rollouts of an iteration are sampled: with its weights, or during the update before.

Both samplers give the rollouts of the same plans, which are made from the same rewards: those of an
iteration are known before its update starts.
"""

import abc
import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import Any

from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS

from prefix_rft_rllib import metrics
from prefix_rft_rllib.core.prefix_sampling import PlannedRollout
from prefix_rft_rllib.iterations.groups import Group, in_groups
from prefix_rft_rllib.iterations.planning import IterationPlan
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.env_runners import EnvRunners, RolloutsInFlight

logger = logging.getLogger(__name__)

State = list[dict[str, Any]]
"""Episodes as plain data."""


class GroupSource(abc.ABC):
    """Gives the sampled groups of each iteration.

    Args:
        env_runners: They sample.
    """

    def __init__(self, env_runners: EnvRunners) -> None:
        self._env_runners = env_runners

    @abc.abstractmethod
    def groups(self, plan: IterationPlan) -> list[Group]:
        """The groups of an iteration with their episodes, before any is replaced."""

    def start(self, plan: IterationPlan) -> None:  # noqa: B027
        """The update begins, and what it does not change of the next iteration's plan is known."""

    def finish(self) -> None:  # noqa: B027
        """The update is over; new weights follow."""

    def get_state(self) -> State | None:
        """Rollouts that wait for the next iteration; None if there are none."""
        return None

    def set_state(self, state: State | None) -> None:  # noqa: B027
        """Go on with rollouts that wait; None forgets those that do."""


class OnPolicy(GroupSource):
    """Samples an iteration when it begins."""

    @override(GroupSource)
    def groups(self, plan: IterationPlan) -> list[Group]:
        return sampled_groups(self._env_runners, plan.groups())


class SamplingAhead(GroupSource):
    """Samples an iteration during the update of the one before, with the weights before it.

    Nothing is under way between iterations: the rollouts are complete when an update is over, and
    part of the checkpoint, since a restored run no longer has the weights that sampled them.
    """

    def __init__(self, env_runners: EnvRunners) -> None:
        super().__init__(env_runners)
        self._in_flight: RolloutsInFlight | None = None
        self._episodes: list[SingleAgentEpisode] | None = None

    @override(GroupSource)
    def groups(self, plan: IterationPlan) -> list[Group]:
        groups = plan.groups()
        episodes = self._episodes  # kept until the next ones: this iteration may be given up
        if episodes is None:  # the first iteration of a run
            return sampled_groups(self._env_runners, groups)
        if [e.custom_data[row_data.ROLLOUT] for e in episodes] != _rollouts(groups):
            logger.warning(
                "The rollouts in the checkpoint are not those that this run plans for iteration "
                "%d, since its settings differ. They are sampled again.",
                plan.iteration + 1,
            )
            return sampled_groups(self._env_runners, groups)
        in_groups(groups, episodes)
        return groups

    @override(GroupSource)
    def start(self, plan: IterationPlan) -> None:
        self._in_flight = self._env_runners.start(_rollouts(plan.groups()))

    @override(GroupSource)
    def finish(self) -> None:
        assert self._in_flight is not None, "`finish` comes after `start`"
        started = time.perf_counter()
        self._episodes = self._env_runners.finish(self._in_flight, key=ENV_RUNNER_RESULTS)
        self._in_flight = None
        seconds = time.perf_counter() - started
        key = (metrics.TIME, metrics.SAMPLING_TIME)
        self._env_runners.metrics.log_value(key, seconds, reduce="sum")

    @override(GroupSource)
    def get_state(self) -> State | None:
        return None if self._episodes is None else [_plain(e) for e in self._episodes]

    @override(GroupSource)
    def set_state(self, state: State | None) -> None:
        self._episodes = None if state is None else [_episode(data) for data in state]


GROUP_SOURCES: dict[int, type[GroupSource]] = {0: OnPolicy, 1: SamplingAhead}
"""By `max_weight_staleness`."""


def sampled_groups(env_runners: EnvRunners, groups: list[Group]) -> list[Group]:
    """Sample planned groups now.

    Args:
        env_runners: They sample.
        groups: Planned groups, which get their episodes.

    Returns:
        The same groups.
    """
    in_groups(groups, env_runners.sample(_rollouts(groups), key=ENV_RUNNER_RESULTS))
    return groups


def resampled(
    env_runners: EnvRunners, plan: IterationPlan, groups: Sequence[Group]
) -> tuple[list[Group], list[Group]]:
    """Replace groups without signal by groups of other problems.

    There are as many rounds as the config allows; what has no signal after the last one stays.

    Args:
        env_runners: They sample.
        plan: The plan of the iteration.
        groups: Its sampled groups.

    Returns:
        The groups to train on, and all that were sampled.
    """
    kept, sampled = list(groups), list(groups)
    for _ in range(plan.num_resampling_rounds):
        without_signal = [i for i, group in enumerate(kept) if not group.has_signal]
        if not without_signal:
            break
        fresh = sampled_groups(env_runners, plan.replacements(len(without_signal), sampled))
        sampled += fresh
        for index, group in zip(without_signal, fresh, strict=True):
            kept[index] = group
    return kept, sampled


def _rollouts(groups: Sequence[Group]) -> list[PlannedRollout]:
    return [rollout for group in groups for rollout in group.planned]


def _plain(episode: SingleAgentEpisode) -> dict[str, Any]:
    """A rollout as plain data."""
    data = dict(episode.custom_data)
    return {
        "prompt_ids": row_data.prompt_ids_of(episode),
        "response_ids": row_data.response_ids_of(episode),
        "logps": row_data.engine_logps_of(episode),
        "reward": float(episode.get_return()),
        "terminated": episode.is_terminated,
        "custom_data": data | {row_data.ROLLOUT: dataclasses.asdict(data[row_data.ROLLOUT])},
    }


def _episode(data: dict[str, Any]) -> SingleAgentEpisode:
    """The rollout that `_plain` turned into plain data."""
    custom_data = data["custom_data"]
    rollout = PlannedRollout(**custom_data[row_data.ROLLOUT])
    return row_data.build_episode(
        **data | {"custom_data": custom_data | {row_data.ROLLOUT: rollout}}
    )
