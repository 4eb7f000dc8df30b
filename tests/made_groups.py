"""Problems, plans and played groups made by hand."""

from collections.abc import Callable, Mapping, Sequence

from prefix_rft_rllib import PrefixRFTConfig, methods
from prefix_rft_rllib.envs.demonstrations.facts import DemonstrationFacts
from prefix_rft_rllib.envs.problems import Problem
from prefix_rft_rllib.iterations.carried_over import CarriedOver
from prefix_rft_rllib.iterations.groups import Group, in_groups
from prefix_rft_rllib.iterations.planning import IterationPlan
from prefix_rft_rllib.methods import Method
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.row_data import build_episode

NUM_PROBLEMS = 12


def problem(number: int, num_demonstrations: int = 1) -> Problem:
    """A problem whose prompt and demonstrations tell its number."""
    demonstrations = [(200 + d, *range(100, 100 + number), 1) for d in range(num_demonstrations)]
    return Problem(
        problem_id=f"p{number}",
        domain="math",
        prompt=f"problem {number}",
        prompt_ids=(number, 3),
        answer="0",
        demonstration_ids=tuple(demonstrations),
        split="train",
        source=f"made:{number}",
        num_long_demonstrations=0,
    )


PROBLEMS = [problem(number) for number in range(NUM_PROBLEMS)]


class MadeFacts(DemonstrationFacts):
    """Facts about demonstrations of which nothing has to be found out.

    Args:
        answer_cut: As the methods of `DemonstrationFacts`, and so are the others.
        step_ends: Likewise.
        reward: Likewise.
    """

    def __init__(
        self,
        *,
        answer_cut: Callable[[str, int], int | None],
        step_ends: Callable[[str, int], tuple[int, ...]],
        reward: Callable[[str, int], float],
    ):
        self.answer_cut, self.step_ends, self.reward = answer_cut, step_ends, reward


def facts(
    *,
    cut: Callable[[str, int], int | None] = lambda problem_id, index: None,
    step_length: int = 3,
    rewards: Mapping[str, float] | None = None,
) -> DemonstrationFacts:
    """Demonstrations of steps of equal length; all earn 1 but those in `rewards`."""
    lengths = {f"p{number}": 2 + number for number in range(1000)}
    return MadeFacts(
        answer_cut=cut,
        step_ends=lambda problem_id, index: (
            *range(step_length, lengths[problem_id], step_length),
            lengths[problem_id],
        ),
        reward=lambda problem_id, index: (rewards or {}).get(problem_id, 1.0),
    )


def plan_of(
    config: PrefixRFTConfig,
    method: str | Method = "prefix_rft",
    iteration: int = 0,
    *,
    problems: Sequence[Problem] = PROBLEMS,
    facts: DemonstrationFacts = facts(),  # noqa: B008
    feedback: CarriedOver | None = None,
) -> IterationPlan:
    """The plan of an iteration of a method with its default settings, or of a ready one."""
    stage = methods.build(method).stage_at(iteration)
    feedback = feedback or CarriedOver(stage)
    return IterationPlan(
        config=config,
        stage=stage,
        problems=problems,
        facts=facts,
        feedback=feedback,
        schedule_state=feedback.schedule_state,
        iteration=iteration,
    )


def play(
    groups: list[Group], rewards: Sequence[float] | Mapping[str, Sequence[float]]
) -> list[Group]:
    """Episodes for all rollouts; member m earns `rewards[m]`, or that of its problem's rewards."""
    episodes = []
    for group in groups:
        earned = rewards[group.problem.problem_id] if isinstance(rewards, Mapping) else rewards
        for rollout in group.planned:
            given = rollout.num_prefix_tokens
            demonstrations = group.problem.demonstration_ids
            prefix = demonstrations[rollout.demonstration_index][:given] if given else ()
            reward = earned[rollout.member]
            data = {
                row_data.ROLLOUT: rollout,
                row_data.IS_DEMONSTRATION: False,
                row_data.VERDICT: "CORRECT" if reward > 0 else "WRONG",
                row_data.WEIGHT_STALENESS: 0,
            }
            episodes.append(
                build_episode(
                    group.problem.prompt_ids, (*prefix, 50, 51), custom_data=data, reward=reward
                )
            )
    in_groups(groups, episodes)
    return groups
