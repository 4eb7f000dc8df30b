"""Whole demonstrations that become batch rows without generating anything.

They are rows, not rollouts: an environment never resets into a finished episode.
"""

from __future__ import annotations

import abc
import dataclasses

from prefix_rft_rllib.basics.random_draws import uniform
from prefix_rft_rllib.basics.ranges import whole


class DemonstrationRows(abc.ABC):
    """Which demonstrations of a problem are added to the batch."""

    num_rows: int = 0
    """Rows per problem, at most."""
    is_member: bool = False
    """True if such a row is a member of its problem's group, with its own reward and advantage."""

    @abc.abstractmethod
    def indices(
        self, *, seed: int, iteration: int, problem_id: str, num_demonstrations: int
    ) -> list[int]:
        """The demonstrations to add for one problem.

        Args:
            seed: Seed of the run.
            iteration: Training iteration, from 0.
            problem_id: The problem.
            num_demonstrations: How many usable demonstrations it has.

        Returns:
            Different indices below `num_demonstrations`, a pure function of the arguments.
        """


@dataclasses.dataclass(frozen=True)
class NoRows(DemonstrationRows):
    """No demonstration rows."""

    def indices(  # noqa: D102
        self, *, seed: int, iteration: int, problem_id: str, num_demonstrations: int
    ) -> list[int]:
        return []


@dataclasses.dataclass(frozen=True)
class EveryStep(DemonstrationRows):
    """Rows of every problem of every iteration.

    Attributes:
        num_rows: Rows per problem, drawn without replacement; a problem with fewer demonstrations
            gives all it has.
    """

    num_rows: int = 1

    def __post_init__(self) -> None:
        whole(1).check("num_rows", self.num_rows)

    def indices(  # noqa: D102
        self, *, seed: int, iteration: int, problem_id: str, num_demonstrations: int
    ) -> list[int]:
        ranks = {
            index: uniform("demonstration_row", seed, iteration, problem_id, index)
            for index in range(num_demonstrations)
        }
        return sorted(ranks, key=ranks.__getitem__)[: self.num_rows]


@dataclasses.dataclass(frozen=True)
class OneRowPerGroup(EveryStep):
    """One demonstration as a member of its problem's group, in the place of one rollout (LUFFY).

    It has its own reward, counts in the baseline, and has an advantage.
    """

    num_rows: int = dataclasses.field(default=1, init=False, repr=False)
    is_member = True
