"""What evaluations during training ask: held-out sets, and benchmarks whose problems are loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from prefix_rft_rllib.envs.problems import Problem, ProblemSet, load_problem_set
from prefix_rft_rllib.evaluation.asking import num_ungradeable
from prefix_rft_rllib.evaluation.benchmarks import find_benchmark
from prefix_rft_rllib.evaluation.held_out import AskedSet, options_of
from prefix_rft_rllib.evaluation.questions import spread_evenly
from prefix_rft_rllib.evaluation.sets import (
    EvaluationSet,
    benchmark_env_config,
    sets_to_evaluate,
)
from prefix_rft_rllib.rollouts.sampling import Sampling
from prefix_rft_rllib.settings.settings import Settings
from prefix_rft_rllib.settings.setup_checks import check_model

logger = logging.getLogger(__name__)


def asked_sets(config: Settings, problem_set: ProblemSet) -> tuple[AskedSet, ...]:
    """Load what evaluations during training ask.

    Args:
        config: Validated settings.
        problem_set: The run's problems.

    Returns:
        The sets in the order of `evaluation_sets`, else of the held-out sets; none where RLlib or a
        function of the user's evaluates.

    Raises:
        ValueError: If a benchmark cannot be loaded, or a set has no problem.
    """
    if not config.evaluates_sets:
        return ()
    sets = sets_to_evaluate(config.evaluation_sets, problem_set.held_out)
    if config.evaluation_interval and not sets and not config.demonstration_probes:
        raise ValueError(
            f"`evaluation_interval` ({config.evaluation_interval}) is set, but no problem fell "
            "into env_config['held_out_fraction'] "
            f"({problem_set.settings.held_out_fraction}). Raise it."
        )
    env = config.token_env_config()
    return tuple(_asked(config, name, of, problem_set, env) for name, of in sets.items())


def _asked(
    config: Settings, name: str, of: EvaluationSet, own: ProblemSet, env: Mapping[str, Any]
) -> AskedSet:
    """A set with its problems."""
    env_config, problem_set = None, own
    problems: Sequence[Problem] = own.held_out.get(name, ())
    protocol = config.held_out_num_samples
    if of.benchmark is not None:
        protocol = find_benchmark(of.benchmark).recipe.num_samples
        env_config = benchmark_env_config(of, env)
        try:
            problem_set = load_problem_set(env_config)
            check_model(config, problem_set)
            problems = problem_set.problems
            _say_ungradeable(config, name, problem_set)
        except ValueError as error:
            raise ValueError(f"`evaluation_sets[{name!r}]`: {error}") from error
    if not problems:
        raise ValueError(
            f"`evaluation_sets[{name!r}]` has no problem: none is held out under this name. "
            "See env_config['held_out_data'] and 'held_out_fraction'."
        )
    overrides = config.evaluation_config or {}
    given = {"temperature": of.temperature, "top_p": of.top_p}
    options = options_of(
        protocol if of.num_samples is None else of.num_samples,
        greedy=of.greedy,
        seed=config.seed,
        num_env_runners=config.evaluation_num_env_runners or config.num_env_runners,
    )
    return AskedSet(
        name=name,
        problem_set=problem_set,
        problems=spread_evenly(problems, of.num_problems),
        options=options,
        sampling=Sampling(
            **{k: overrides.get(k) if value is None else value for k, value in given.items()},
            max_response_tokens=of.max_response_tokens,
            env_config=env_config,
        ),
    )


def _say_ungradeable(config: Settings, name: str, problem_set: ProblemSet) -> None:
    """Say how many gold answers of a benchmark nobody can give."""
    if not config.preflight:
        return
    if num := num_ungradeable(problem_set, problem_set.problems):
        logger.warning(
            "Evaluation set %r: the verifier refuses the gold answers of %d of %d problems, which "
            "count as not solved.",
            name,
            num,
            len(problem_set.problems),
        )
