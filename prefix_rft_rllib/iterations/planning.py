"""The plan of an iteration: problems, prefix lengths, demonstration rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from prefix_rft_rllib.core.demonstration_rows import DemonstrationRows
from prefix_rft_rllib.core.prefix_sampling import GroupSpec, plan_group
from prefix_rft_rllib.core.prefix_schedules import Window
from prefix_rft_rllib.core.problem_order import problem_indices, replacement_indices
from prefix_rft_rllib.envs.demonstrations.facts import DemonstrationFacts
from prefix_rft_rllib.envs.problems import Problem
from prefix_rft_rllib.iterations.carried_over import CarriedOver
from prefix_rft_rllib.iterations.groups import Group
from prefix_rft_rllib.methods import ActiveStage
from prefix_rft_rllib.settings.settings import Settings


@dataclass(frozen=True, kw_only=True)
class IterationPlan:
    """What an iteration is planned from; pure functions of it give the groups.

    Attributes:
        config: The run's settings.
        stage: The method's stage of this iteration.
        problems: The problems that the stage trains on.
        facts: About their demonstrations.
        feedback: What earlier iterations have left; it goes on changing.
        schedule_state: State of the prefix schedule before this iteration.
        iteration: Training iteration, from 0.
    """

    config: Settings
    stage: ActiveStage
    problems: Sequence[Problem]
    facts: DemonstrationFacts
    feedback: CarriedOver
    schedule_state: Mapping[str, Any]
    iteration: int

    @cached_property
    def window(self) -> Window | None:
        """The run's prefix window in this iteration; None for a method without prefixes."""
        schedule = self.stage.method.prefix_sampler.fraction
        if schedule is None:
            return None
        iteration = self.iteration - self.stage.start
        return schedule.window(iteration, self.schedule_state, None)

    @property
    def num_resampling_rounds(self) -> int:
        """How often groups without signal may be replaced; 0 where nothing is sampled."""
        return self.config.max_resampling_rounds if self.stage.method.has_rollouts else 0

    def groups(self) -> list[Group]:
        """Plan the iteration.

        A pure function: the plan is the same for any number of env runners and after a restore.

        Returns:
            One group per problem of the iteration.
        """
        config = self.config
        indices = problem_indices(
            len(self.problems), config.num_problems_per_iteration, self.iteration, config.seed
        )
        return self._groups([self.problems[index] for index in indices], [])

    def replacements(self, count: int, sampled: Sequence[Group]) -> list[Group]:
        """Plan groups of other problems in the place of groups without signal.

        Args:
            count: Groups to plan.
            sampled: All groups of the iteration so far.

        Returns:
            New groups with new ids; their problems are new in the iteration while there are any.
        """
        ids = {group.problem.problem_id for group in sampled}
        met = [i for i, problem in enumerate(self.problems) if problem.problem_id in ids]
        key = (self.config.seed, self.iteration, len(sampled))
        indices = replacement_indices(len(self.problems), count, met, key)
        return self._groups([self.problems[index] for index in indices], sampled)

    def imitation_groups(self) -> list[Group]:
        """Plan the stage's separate step on failed problems.

        Returns:
            Groups of one demonstration row each; empty where no such step is due.
        """
        step = self.stage.method.after_step
        if step is None:
            return []
        taken = self.feedback.take_failed(step.buffer_size)
        by_id = {problem.problem_id: problem for problem in self.problems} if taken else {}
        problems = [by_id[problem_id] for problem_id in taken]
        return [
            Group(number, problem, [], self._rows(step.demonstration_rows, problem))
            for number, problem in enumerate(problems)
        ]

    def _rows(self, rows: DemonstrationRows, problem: Problem) -> list[int]:
        return rows.indices(
            seed=self.config.seed,
            iteration=self.iteration,
            problem_id=problem.problem_id,
            num_demonstrations=len(problem.demonstration_ids),
        )

    def _groups(self, problems: Sequence[Problem], earlier: Sequence[Group]) -> list[Group]:
        occurrences = Counter(group.problem.problem_id for group in earlier)
        groups = []
        for group_id, problem in enumerate(problems, len(earlier)):
            groups.append(self._group(group_id, problem, occurrences[problem.problem_id]))
            occurrences[problem.problem_id] += 1
        return groups

    def _group(self, group_id: int, problem: Problem, occurrence: int) -> Group:
        method = self.stage.method
        problem_id = problem.problem_id
        num_demonstrations = len(problem.demonstration_ids)
        rows = self._rows(method.demonstration_rows, problem)
        spec = GroupSpec(
            seed=self.config.seed,
            iteration=self.iteration,
            group_id=group_id,
            problem_id=problem_id,
            num_rollouts=method.num_rollouts(self.config.group_size, num_demonstrations),
            demonstration_lengths=[len(ids) for ids in problem.demonstration_ids],
            answer_cut=partial(self.facts.answer_cut, problem_id),
            max_response_tokens=self.config.max_response_tokens,
            occurrence=occurrence,
            step_ends=partial(self.facts.step_ends, problem_id),
            schedule_iteration=self.iteration - self.stage.start,
            schedule_state=self.schedule_state,
        )
        rollouts = plan_group(method.prefix_sampler, spec) if spec.num_rollouts else []
        is_member = method.demonstration_rows.is_member
        rewards = [self.facts.reward(problem_id, index) for index in rows] if is_member else []
        return Group(group_id, problem, rollouts, rows, rewards)
