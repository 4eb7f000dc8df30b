"""A prefix window that follows the policy: its position is controlled by the rewards."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from prefix_rft_rllib.basics.ranges import SHARE, real
from prefix_rft_rllib.core.prefix_schedules import Rewards, Schedule, UniformWindow

_NEVER_MOVES = "At 0 the window never moves."

LOWEST, HIGHEST = 0.05, 0.95
"""The window never leaves this range (the ends of the paper's window, App. A.2)."""
MAX_WIDTH = 0.9
"""Distance of the range's ends; in binary 0.95 - 0.05 is a little less."""
PLAIN_MEMORY = 0.8
"""Weight of the past in the running mean of the plain rollouts' reward."""
OFFSET_GAIN = 0.5
"""Change of a problem's window per unit of its mean reward's distance from the others'."""
MAX_OFFSET = 0.2
"""Largest distance of a problem's window from the run's."""
PRIOR_MEETINGS = 2
"""Imagined meetings of average reward, so that a problem's first rewards count little."""


@dataclasses.dataclass(frozen=True)
class Adaptive(Schedule):
    """One window for the whole run, moved so that prefix rollouts earn a target reward.

    After each iteration the window moves by gain * (target - mean reward of the prefix rollouts),
    at most by `max_step`: up, to longer prefixes, where they earn too little. At a mean of 0.5 a
    binary reward carries most signal (cf. arXiv 2605.05112, for prefixes of the policy's own
    trajectories). Once plain rollouts earn nearly the target, within `rest_margin`, the window
    goes to the lower end of its range and rests there.

    A problem met at least twice has an offset from that window: up where it was solved less often
    than the others of its iterations, down where more often.

    State: `low`, the window's lower end; `plain_reward`, the running mean of the plain rollouts'
    reward (None before the first); `problems`, by id the number of meetings and the sum of its
    rewards' distances below the iteration's mean.

    Attributes:
        target: Mean reward to hold.
        width: Distance of the window's ends.
        gain: Move per unit of the reward's distance from the target, a share of the demonstration.
        max_step: Largest move after one iteration.
        rest_margin: How near to the target plain rollouts have to come.
    """

    target: float = 0.5
    width: float = 0.2
    gain: float = 0.5
    max_step: float = 0.1
    rest_margin: float = 0.1

    def __post_init__(self) -> None:
        for name in ("target", "width", "rest_margin"):
            SHARE.check(name, getattr(self, name))
        if self.width > MAX_WIDTH:
            raise ValueError(
                f"`width` ({self.width}) must be at most {MAX_WIDTH}: the window moves "
                f"inside [{LOWEST}, {HIGHEST}]."
            )
        real(above=0).advising(f"{_NEVER_MOVES} Try 0.5.").check("gain", self.gain)
        real(above=0, most=1).advising(f"{_NEVER_MOVES} Try 0.1.").check("max_step", self.max_step)

    def initial_state(self) -> dict[str, Any]:
        """The window at the upper end of its range, no problem met."""
        return {"low": self._inside(HIGHEST), "plain_reward": None, "problems": {}}

    def window(  # noqa: D102
        self, iteration: int, state: Mapping[str, Any], problem_id: str | None
    ) -> UniformWindow:
        num_meetings, distance = state["problems"].get(problem_id, (0, 0.0))
        offset = 0.0
        if num_meetings >= 2:
            offset = OFFSET_GAIN * distance / (num_meetings + PRIOR_MEETINGS)
        # The state may be that of a run with another width.
        low = self._inside(state["low"] + min(max(offset, -MAX_OFFSET), MAX_OFFSET))
        # Rounding must not lift the upper end out of the range.
        return UniformWindow(low, min(low + self.width, HIGHEST))

    def next_state(self, state: Mapping[str, Any], rewards: Rewards) -> dict[str, Any]:
        """Move the window; an iteration without prefix rollouts leaves it where it is."""
        plain_reward = state["plain_reward"]
        if rewards.plain:
            mean = math.fsum(rewards.plain) / len(rewards.plain)
            past = mean if plain_reward is None else plain_reward
            plain_reward = PLAIN_MEMORY * past + (1.0 - PLAIN_MEMORY) * mean
        low, problems = state["low"], dict(state["problems"])
        if rewards.prefix:
            mean = math.fsum(rewards.prefix.values()) / len(rewards.prefix)
            step = self.gain * (self.target - mean)
            if plain_reward is not None and plain_reward >= self.target - self.rest_margin:
                step = -self.max_step
            low = self._inside(low + min(max(step, -self.max_step), self.max_step))
            for problem_id, reward in rewards.prefix.items():
                num_meetings, distance = problems.get(problem_id, (0, 0.0))
                problems[problem_id] = [num_meetings + 1, distance + mean - reward]
        return {"low": low, "plain_reward": plain_reward, "problems": problems}

    def _inside(self, low: float) -> float:
        return max(min(low, HIGHEST - self.width), LOWEST)
