"""Evaluation during training: sets of problems, asked and scored as by the command `evaluate`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from prefix_rft_rllib import metrics
from prefix_rft_rllib.envs.problems import Problem, ProblemSet
from prefix_rft_rllib.evaluation import asking, scores
from prefix_rft_rllib.evaluation.completions import Completion
from prefix_rft_rllib.evaluation.options import EvaluationOptions
from prefix_rft_rllib.evaluation.questions import Question
from prefix_rft_rllib.evaluation.votes import Votes
from prefix_rft_rllib.rollouts.env_runners import EnvRunners
from prefix_rft_rllib.rollouts.sampling import AS_SET, Sampling

if TYPE_CHECKING:
    from ray.rllib.env.env_runner_group import EnvRunnerGroup

ATTEMPTS_PER_CALL = 1024
"""Attempts that go to each env runner at a time: each has an environment of its own."""
DRAWS = "evaluation"
"""Key of the draws of evaluations during training."""


@dataclass(frozen=True, kw_only=True)
class AskedSet:
    """A set of problems and how it is asked.

    Attributes:
        name: What its results are called by.
        problem_set: Where its problems are from.
        problems: Those that are asked, at least one.
        options: Attempts, one seed, and the size of calls.
        sampling: What differs from the env runners' settings.
    """

    name: str
    problem_set: ProblemSet
    problems: Sequence[Problem]
    options: EvaluationOptions
    sampling: Sampling = AS_SET


class EvaluatedAlgorithm(Protocol):
    """What an evaluation asks of an algorithm; `PrefixRFT` has it."""

    @property
    def config(self) -> Any:
        """Its settings: `seed` and `num_env_runners` are read."""

    @property
    def env_runners(self) -> EnvRunners:
        """The training env runners, with the newest weights."""

    @property
    def problem_set(self) -> ProblemSet:
        """The run's own problems."""

    @property
    def asked_sets(self) -> Sequence[AskedSet]:
        """What evaluations ask."""

    def evaluating_env_runners(self) -> AbstractContextManager[EnvRunners]:
        """Who attempt the problems of evaluations, with the weights to evaluate."""


def options_of(
    num_samples: int, *, greedy: bool = True, seed: int, num_env_runners: int
) -> EvaluationOptions:
    """Write down how a set is asked during training.

    Args:
        num_samples: k: sampled attempts at each problem.
        greedy: Whether each gets a greedy attempt too.
        seed: Of the run.
        num_env_runners: Remote env runners that answer.

    Returns:
        Options with these, for avg@k, pass@k and maj@k alone.

    Raises:
        ValueError: If there is nothing to ask, or k is too large for pass@k.
    """
    return EvaluationOptions(
        num_samples=num_samples,
        greedy=greedy,
        seeds=(seed,),
        ks=(num_samples,) if num_samples else (),
        breakdown=(),
        attempts_per_call=ATTEMPTS_PER_CALL,
        num_env_runners=num_env_runners,
    ).of_protocol(num_samples)


def evaluate_set(env_runners: EnvRunners, asked: AskedSet) -> dict[str, Any]:
    """Attempt the problems of a set, and score the attempts.

    The draws depend on seed, problem and attempt only, so that evaluations of different iterations
    differ by the weights alone.

    Args:
        env_runners: Who answer.
        asked: The set.

    Returns:
        As `score_set`.
    """
    answers: dict[Question, Completion] = {}
    for call in asking.calls_of(asked.problems, asked.options):
        episodes = asking.attempts(env_runners, call, asked.sampling, DRAWS)
        for question, episode in zip(call, episodes, strict=True):
            answers[question] = asking.completion_of(question, episode, asked.problem_set)
    return score_set(asked, answers)


def score_set(asked: AskedSet, answers: dict[Question, Completion]) -> dict[str, Any]:
    """Score answers as the command does.

    Args:
        asked: The set.
        answers: A completion for each question that its options ask.

    Returns:
        Numbers by the names in `metrics` ("Sets of problems"): means over problems, each with the
        ends of its 95% interval under the same name with `LOW` and `HIGH` behind it.
    """
    options, settings = asked.options, asked.problem_set.settings
    limit = asked.sampling.max_response_tokens or settings.max_response_tokens
    votes = Votes(settings)
    collected = scores.collect(asked.problems, answers, options, votes)
    found = scores.score(collected, options, max_response_tokens=limit)
    n = options.num_samples or 0
    names = {
        f"avg@{n}": metrics.AVG_AT_K,
        f"pass@{n}": metrics.PASS_AT_K,
        f"maj@{n}": metrics.MAJ_AT_K,
        "response_length": metrics.RESPONSE_LENGTH_MEAN,
        "truncated_fraction": metrics.TRUNCATED_FRACTION,
        "greedy_pass@1": metrics.GREEDY_ACCURACY,
        "greedy_response_length": metrics.GREEDY_RESPONSE_LENGTH_MEAN,
        "greedy_truncated_fraction": metrics.GREEDY_TRUNCATED_FRACTION,
    }
    results: dict[str, Any] = {}
    for name, estimate in found["overall"].items():
        results[names[name]] = estimate["mean"]
        results[names[name] + metrics.LOW] = estimate["low"]
        results[names[name] + metrics.HIGH] = estimate["high"]
    sampled = [answer.reward for question, answer in answers.items() if question.seed is not None]
    if sampled:
        results[metrics.SAMPLE_REWARD_MEAN] = sum(sampled) / len(sampled)
    results[metrics.NUM_PROBLEMS] = len(asked.problems)
    results[metrics.NUM_SAMPLES] = n
    results[metrics.VERDICTS] = found["verdicts"]
    return results


def evaluate_problems(
    algorithm: EvaluatedAlgorithm, problems: Sequence[Problem], *, num_samples: int
) -> dict[str, Any]:
    """Attempt problems without a prefix, once greedily and `num_samples` times by sampling.

    The training env runners sample, at the temperature and top-p of training. The draws depend on
    the seed and the problem only.

    Args:
        algorithm: Whose `env_runners` sample, and whose seed counts.
        problems: What to attempt, of any split of its problems.
        num_samples: k.

    Returns:
        As `score_set`.

    Raises:
        ValueError: If there is no problem, or `num_samples` is below 1.
    """
    if not problems or num_samples < 1:
        raise ValueError(
            f"Nothing to evaluate: {len(problems)} problems, `num_samples` {num_samples}. Both "
            "must be at least 1."
        )
    config = algorithm.config
    options = options_of(num_samples, seed=config.seed, num_env_runners=config.num_env_runners)
    asked = AskedSet(name="", problem_set=algorithm.problem_set, problems=problems, options=options)
    return evaluate_set(algorithm.env_runners, asked)


def evaluate_held_out(
    algorithm: EvaluatedAlgorithm, env_runner_group: "EnvRunnerGroup | None" = None
) -> tuple[dict[str, Any], int, int]:
    """Evaluate every set; what `PrefixRFT.evaluate` does with the default settings.

    Args:
        algorithm: The algorithm.
        env_runner_group: RLlib's evaluation runners; not used: the algorithm knows who answer.

    Returns:
        Results by set, as `score_set`, and the numbers of env and agent steps as RLlib asks for
        them (0: these tokens are no training steps).
    """
    with algorithm.evaluating_env_runners() as env_runners:
        results = {asked.name: evaluate_set(env_runners, asked) for asked in algorithm.asked_sets}
    return results, 0, 0
