"""Ask a model what a file does not answer yet."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from tqdm import tqdm

from prefix_rft_rllib.envs.problems import Problem, ProblemSet
from prefix_rft_rllib.envs.verifiers.grading import refuses_answer
from prefix_rft_rllib.evaluation.completions import Completion, CompletionsFile
from prefix_rft_rllib.evaluation.options import EvaluationOptions
from prefix_rft_rllib.evaluation.questions import Question, calls, plan, rollouts
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.env_runners import EnvRunners
from prefix_rft_rllib.rollouts.sampling import AS_SET, Sampling

logger = logging.getLogger(__name__)


def hash_of(*parts: Any) -> str:
    """Hash plain JSON data; 16 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def problem_hash(problem: Problem) -> str:
    """Hash what a problem asks and its gold answer, whatever template stands around it."""
    return hash_of(problem.prompt, list(map(dict, problem.messages)), problem.answer)


def data_fingerprint(problem_set: ProblemSet, problems: Sequence[Problem]) -> dict[str, Any]:
    """What completions depend on, of problems and their environment.

    Args:
        problem_set: Where the problems are from.
        problems: Those that are asked.

    Returns:
        Plain data for `CompletionsFile`.
    """
    settings = problem_set.settings
    return {
        "num_problems": len(problems),
        "problems": hash_of([[p.problem_id, problem_hash(p)] for p in problems]),
        "prompts": hash_of([list(map(int, p.prompt_ids)) for p in problems]),
        "end_tokens": sorted(map(int, problem_set.end_tokens.ids)),
        "max_response_tokens": settings.max_response_tokens,
        "verifier": settings.verifier,
        "verifier_config": json.loads(json.dumps(dict(settings.verifier_config), default=repr)),
        "rewards": dict(settings.rewards),
    }


def num_ungradeable(problem_set: ProblemSet, problems: Sequence[Problem]) -> int:
    """Count gold answers that the verifier refuses: nobody can solve these problems.

    Args:
        problem_set: With the verifier.
        problems: Those that are asked.

    Returns:
        Their number.

    Raises:
        ValueError: If the verifier raises an exception, for a domain that it does not know.
    """
    grader = problem_set.grader
    outcomes = grader.grade_answers(problems)
    if grader.failures:
        reasons = "; ".join(f"{kind}: {text}" for kind, text in grader.failures.items())
        raise ValueError(
            f"The verifier {problem_set.settings.verifier!r} fails at gold answers ({reasons}). "
            "Name another in env_config['verifier']."
        )
    verifier = problem_set.settings.verifier
    pairs = zip(outcomes, problems, strict=True)
    return sum(refuses_answer(outcome, problem, verifier) for outcome, problem in pairs)


def calls_of(problems: Sequence[Problem], options: EvaluationOptions) -> list[list[Question]]:
    """Plan what is asked, in calls of one temperature each.

    Args:
        problems: Those that are asked.
        options: With `num_samples`.

    Returns:
        The questions of each call, in the plan's order.
    """
    parts = plan(
        [problem.problem_id for problem in problems],
        num_samples=options.num_samples or 0,
        seeds=options.seeds,
        greedy=options.greedy,
    )
    size = options.attempts_per_call * max(1, options.num_env_runners)
    return [call for part in parts for call in calls(part, size)]


def answers(
    start: Callable[[], AbstractContextManager[EnvRunners]],
    problem_set: ProblemSet,
    problems: Sequence[Problem],
    options: EvaluationOptions,
    file: CompletionsFile,
) -> dict[Question, Completion]:
    """Ask what the file does not answer yet, and give all answers.

    Args:
        start: Starts those who answer; called only if something is missing.
        problem_set: Where the problems are from.
        problems: Those that are asked.
        options: With `num_samples`.
        file: Where answers are and go.

    Returns:
        A completion for each question that the options ask, in the plan's order.
    """
    planned_calls = calls_of(problems, options)
    due = [[q for q in call if q not in file.by_question] for call in planned_calls]
    planned = [question for call in planned_calls for question in call]
    num_done = len(planned) - sum(map(len, due))
    num_other = len(file.by_question) - num_done
    if file.by_question:
        logger.warning(
            "%d of %d answers are in the file already; %d others in it do not count here.",
            num_done,
            len(planned),
            num_other,
        )
    if num_done < len(planned):
        bar = tqdm(total=len(planned), initial=num_done, unit="answer")
        with bar, start() as env_runners:
            for call in filter(None, due):
                _ask(env_runners, problem_set, call, file)
                bar.update(len(call))
    return {question: file.by_question[question] for question in planned}


def _ask(
    env_runners: EnvRunners, problem_set: ProblemSet, call: list[Question], file: CompletionsFile
) -> None:
    """Ask questions at once, and write what comes back."""
    episodes = attempts(env_runners, call, AS_SET)
    pairs = zip(call, episodes, strict=True)
    file.append([completion_of(question, episode, problem_set) for question, episode in pairs])


def attempts(
    env_runners: EnvRunners, call: Sequence[Question], sampling: Sampling, draws: str = "evaluate"
) -> list[SingleAgentEpisode]:
    """Ask questions at once.

    Args:
        env_runners: Who answer.
        call: The questions; all of them are greedy, or none is.
        sampling: How sampled attempts are drawn; greedy ones differ from it by their temperature.
        draws: As of `questions.rollouts`.

    Returns:
        The answer to each.
    """
    if call[0].seed is None:
        sampling = dataclasses.replace(sampling, temperature=0.0)
    return env_runners.sample(rollouts(call, draws), sampling=sampling)


def completion_of(
    question: Question, episode: SingleAgentEpisode, problem_set: ProblemSet
) -> Completion:
    """Take what is kept of a finished episode.

    Args:
        question: What was asked.
        episode: The answer.
        problem_set: With the problem and the tokenizer.

    Returns:
        The completion.
    """
    response_ids = row_data.response_ids_of(episode).tolist()
    details: Mapping[str, Any] = episode.custom_data.get(row_data.VERDICT_DETAILS) or {}
    return Completion(
        problem_id=question.problem_id,
        seed=question.seed,
        member=question.member,
        problem_hash=problem_hash(problem_set.by_id(question.problem_id)),
        response=problem_set.response_text(response_ids),
        num_tokens=len(response_ids),
        is_truncated=bool(episode.is_truncated),
        verdict=str(episode.custom_data[row_data.VERDICT]),
        reward=float(episode.get_return()),
        is_correct=row_data.is_solution(episode),
        details=dict(details),
    )
