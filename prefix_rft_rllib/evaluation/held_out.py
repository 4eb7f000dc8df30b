"""Accuracy on held-out problems: greedy, avg@k and pass@k."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ray.rllib.utils.metrics import EVALUATION_RESULTS
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from prefix_rft_rllib import metrics
from prefix_rft_rllib.basics.random_draws import stable_hash
from prefix_rft_rllib.core.prefix_sampling import PlannedRollout
from prefix_rft_rllib.envs.problems import Problem, ProblemSet
from prefix_rft_rllib.rollouts.env_runners import EnvRunners
from prefix_rft_rllib.rollouts.row_data import is_solution

if TYPE_CHECKING:
    from ray.rllib.env.env_runner_group import EnvRunnerGroup


class EvaluatedAlgorithm(Protocol):
    """What an evaluation asks of an algorithm; `PrefixRFT` has it."""

    @property
    def config(self) -> Any:
        """Its settings: `seed` and `held_out_num_samples` are read."""

    @property
    def env_runners(self) -> EnvRunners:
        """Who samples, with the newest weights."""

    @property
    def problem_set(self) -> ProblemSet:
        """With the held-out problems."""

    @property
    def metrics(self) -> MetricsLogger:
        """Where RLlib looks for results."""


def evaluate_problems(
    algorithm: EvaluatedAlgorithm, problems: Sequence[Problem], *, num_samples: int
) -> dict[str, float]:
    """Attempt problems without a prefix, once greedily and `num_samples` times by sampling.

    Sampling is at the temperature and top-p of training. The draws depend on the seed and the
    problem only, so that evaluations of different iterations differ by the weights alone.

    Args:
        algorithm: Whose `env_runners` sample, and whose seed counts.
        problems: What to attempt, of any split.
        num_samples: k.

    Returns:
        `metrics.AVG_AT_K`, `PASS_AT_K`, `GREEDY_ACCURACY` and `RESPONSE_LENGTH_MEAN`.

    Raises:
        ValueError: If there is no problem, or `num_samples` is below 1.
    """
    if not problems or num_samples < 1:
        raise ValueError(
            f"Nothing to evaluate: {len(problems)} problems, `num_samples` {num_samples}. Both "
            "must be at least 1."
        )
    sampled = algorithm.env_runners.sample(_plain(algorithm, problems, num_samples))
    greedy = algorithm.env_runners.sample(_plain(algorithm, problems, 1), temperature=0.0)
    rewards = [float(episode.get_return()) for episode in sampled]
    is_right = [is_solution(episode) for episode in sampled]
    solved = [
        any(is_right[start : start + num_samples]) for start in range(0, len(is_right), num_samples)
    ]
    return {
        metrics.AVG_AT_K: sum(rewards) / len(rewards),
        metrics.PASS_AT_K: sum(solved) / len(solved),
        metrics.GREEDY_ACCURACY: sum(float(e.get_return()) for e in greedy) / len(greedy),
        metrics.RESPONSE_LENGTH_MEAN: sum(len(e) for e in sampled) / len(sampled),
    }


def _plain(
    algorithm: EvaluatedAlgorithm, problems: Sequence[Problem], num_samples: int
) -> list[PlannedRollout]:
    return [
        PlannedRollout(
            problem_id=problem.problem_id,
            group_id=number,
            member=member,
            seed=stable_hash("evaluation", algorithm.config.seed, problem.problem_id, member),
        )
        for number, problem in enumerate(problems)
        for member in range(num_samples)
    ]


def evaluate_held_out(
    algorithm: EvaluatedAlgorithm, env_runner_group: "EnvRunnerGroup | None" = None
) -> tuple[dict[str, Any], int, int]:
    """Evaluate every held-out set; RLlib's `custom_evaluation_function` of `PrefixRFTConfig`.

    The training env runners sample: they hold the newest weights.

    Args:
        algorithm: The algorithm.
        env_runner_group: RLlib's evaluation runners; not used.

    Returns:
        Results by set, and the numbers of env and agent steps as RLlib asks for them (0: these
        tokens are no training steps).
    """
    results = {
        name: evaluate_problems(
            algorithm, problems, num_samples=algorithm.config.held_out_num_samples
        )
        for name, problems in algorithm.problem_set.held_out.items()
    }
    # RLlib reads evaluation results from the metrics logger, not from the returned dict.
    logger = MetricsLogger(root=False)
    for name, values in results.items():
        for key, value in values.items():
            logger.log_value((name, key), value, reduce="mean")
    algorithm.metrics.aggregate([logger.reduce()], key=EVALUATION_RESULTS)
    return results, 0, 0
