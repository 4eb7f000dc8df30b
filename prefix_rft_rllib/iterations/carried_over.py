"""What later iterations learn from earlier ones, beside the weights: part of the checkpoint."""

from collections.abc import Sequence
from typing import Any

from prefix_rft_rllib.core.prefix_schedules import Rewards
from prefix_rft_rllib.iterations.groups import Group
from prefix_rft_rllib.methods import ActiveStage


class CarriedOver:
    """The state of a stage's prefix schedule, and the problems that its rollouts did not solve.

    Args:
        stage: The stage; a new stage starts with a new feedback.

    Attributes:
        stage: Number of the stage.
        schedule_state: State of the prefix schedule; empty for a method without one.
        failed: Ids of problems with a demonstration that no rollout solved, oldest first.
    """

    def __init__(self, stage: ActiveStage) -> None:
        self.stage = stage.number
        self._schedule = stage.method.prefix_sampler.fraction
        self._keeps_failed = stage.method.after_step is not None
        self.schedule_state = self._schedule.initial_state() if self._schedule else {}
        self.failed: list[str] = []

    def observe(self, groups: Sequence[Group]) -> None:
        """Learn from an iteration.

        Args:
            groups: All its complete groups, those that were replaced too.
        """
        if self._schedule is not None:
            self.schedule_state = self._schedule.next_state(self.schedule_state, rewards_of(groups))
        if self._keeps_failed:
            failed = [g.problem.problem_id for g in groups if g.is_failed_with_demonstration]
            known = set(failed)
            self.failed = [name for name in self.failed if name not in known]
            self.failed += dict.fromkeys(failed)

    def take_failed(self, count: int) -> list[str]:
        """Remove the newest failed problems.

        Args:
            count: How many to take.

        Returns:
            The ids of exactly `count` problems, newest first; none if fewer wait.
        """
        if len(self.failed) < count:
            return []
        taken = self.failed[: -count - 1 : -1]
        del self.failed[-count:]
        return taken

    def get_state(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "stage": self.stage,
            "schedule_state": dict(self.schedule_state),
            "failed": list(self.failed),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        A state of another stage, or of another kind of schedule (the method was changed), is left
        out: this feedback then starts anew.
        """
        if state["stage"] != self.stage:
            return
        if state["schedule_state"].keys() == self.schedule_state.keys():
            self.schedule_state = dict(state["schedule_state"])
        if self._keeps_failed:
            self.failed = list(state["failed"])


def rewards_of(groups: Sequence[Group]) -> Rewards:
    """The rewards that schedules learn from.

    Args:
        groups: Complete groups.

    Returns:
        Mean reward of the rollouts with a prefix by problem, and rewards of all others.
    """
    prefix: dict[str, list[float]] = {}
    plain: list[float] = []
    for group in groups:
        for rollout, reward in zip(group.planned, group.rewards, strict=True):
            if rollout.has_prefix:
                prefix.setdefault(rollout.problem_id, []).append(reward)
            else:
                plain.append(reward)
    return Rewards({name: sum(values) / len(values) for name, values in prefix.items()}, plain)
