"""Sets evaluated during training, with env runners that answer from a table."""

import contextlib
from types import SimpleNamespace

import pytest

from prefix_rft_rllib import metrics
from prefix_rft_rllib.basics.random_draws import stable_hash
from prefix_rft_rllib.envs.problems import Problem
from prefix_rft_rllib.envs.settings import EnvSettings
from prefix_rft_rllib.evaluation import held_out, scores
from prefix_rft_rllib.evaluation.asking import completion_of
from prefix_rft_rllib.evaluation.held_out import (
    AskedSet,
    evaluate_held_out,
    evaluate_problems,
    evaluate_set,
    options_of,
)
from prefix_rft_rllib.evaluation.options import EvaluationOptions
from prefix_rft_rllib.evaluation.questions import plan
from prefix_rft_rllib.evaluation.votes import Votes
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.row_data import build_episode
from prefix_rft_rllib.rollouts.sampling import AS_SET, Sampling

# By problem: reward, verdict and length of each sample, then of the greedy response.
ANSWERS = {
    "a": [(1.0, "CORRECT", 3), (0.0, "WRONG", 5), (1.0, "CORRECT", 1)],
    "b": [(0.0, "WRONG", 2), (0.0, "UNPARSEABLE", 2), (1.0, "CORRECT", 2)],
    "c": [(0.0, "TIMEOUT", 4), (1.0, "CORRECT", 6), (0.0, "WRONG", 7)],
}


class TableEnvRunners:
    """Answer every rollout from a table and remember the plans."""

    def __init__(self, answers):
        self.answers = answers
        self.plans = []

    def sample(self, rollouts, *, sampling=AS_SET, key=None):
        self.plans.append((list(rollouts), sampling, key))
        return [self.episode(rollout, sampling.temperature) for rollout in rollouts]

    def episode(self, rollout, temperature):
        table = self.answers[rollout.problem_id]
        reward, verdict, length = table[-1 if temperature == 0.0 else rollout.member]
        data = {row_data.ROLLOUT: rollout, row_data.VERDICT: verdict}
        return build_episode([1], [2] * length, reward=reward, custom_data=data)


class TableProblemSet:
    """Problems whose responses are boxes with their own length in them."""

    def __init__(self, **held_out):
        self.held_out = {name: problems(*ids) for name, ids in held_out.items()}
        self.settings = EnvSettings(data=(), tokenizer="t", max_response_tokens=8)

    def by_id(self, problem_id):
        return problems(problem_id)[0]

    def response_text(self, response_ids):
        return rf"\boxed{{{len(response_ids)}}}"


class TableAlgorithm:
    """An algorithm whose env runners answer from a table."""

    def __init__(self, answers=ANSWERS, seed=0):
        self.config = SimpleNamespace(seed=seed, num_env_runners=0)
        self.env_runners = TableEnvRunners(answers)
        self.problem_set = TableProblemSet(easy="a", hard="bc")
        self.asked_sets = [
            asked_set(*ids, name=name, problem_set=self.problem_set)
            for name, ids in (("easy", "a"), ("hard", "bc"))
        ]

    @contextlib.contextmanager
    def evaluating_env_runners(self):
        yield self.env_runners


def problems(*names):
    texts = {"domain": "math", "prompt": "?", "prompt_ids": (1,), "answer": "7", "source": "made:1"}
    return [Problem(problem_id=name, demonstration_ids=(), split="easy", **texts) for name in names]


def asked_set(*names, num_samples=2, seed=0, sampling=AS_SET, greedy=True, **changes) -> AskedSet:
    values = {"name": "s", "problem_set": TableProblemSet(), "problems": problems(*names)}
    options = options_of(num_samples, greedy=greedy, seed=seed, num_env_runners=0)
    return AskedSet(**{**values, "options": options, "sampling": sampling, **changes})


def means(results):
    """Without counts and the ends of intervals."""
    ends = (metrics.LOW, metrics.HIGH)
    return {k: v for k, v in results.items() if not k.endswith(ends) and k != metrics.VERDICTS}


def test_scores_by_hand():
    results = evaluate_problems(TableAlgorithm(), problems("a", "b", "c"), num_samples=2)
    assert means(results) == pytest.approx(
        {
            metrics.AVG_AT_K: 2 / 6,  # a: 1, 0; b: 0, 0; c: 0, 1
            metrics.PASS_AT_K: 2 / 3,  # a and c
            # a: a tie of 3 and 5; b: one vote, wrong; c: one vote, right
            metrics.MAJ_AT_K: (1 / 2 + 0 + 1) / 3,
            metrics.GREEDY_ACCURACY: 2 / 3,  # a and b
            metrics.RESPONSE_LENGTH_MEAN: (3 + 5 + 2 + 2 + 4 + 6) / 6,
            metrics.TRUNCATED_FRACTION: 0.0,
            metrics.GREEDY_RESPONSE_LENGTH_MEAN: (1 + 2 + 7) / 3,
            metrics.GREEDY_TRUNCATED_FRACTION: 0.0,
            metrics.SAMPLE_REWARD_MEAN: 2 / 6,
            metrics.NUM_PROBLEMS: 3,
            metrics.NUM_SAMPLES: 2,
        },
        rel=1e-12,
    )
    verdicts = {"CORRECT": 4, "TIMEOUT": 1, "UNPARSEABLE": 1, "WRONG": 3}
    assert results[metrics.VERDICTS] == verdicts


def test_means_and_intervals_are_those_of_the_command_on_the_same_completions():
    asked = asked_set("a", "b", "c")
    runners = TableEnvRunners(ANSWERS)
    results = evaluate_set(runners, asked)
    parts = plan(list("abc"), num_samples=2, seeds=(0,), greedy=True)
    questions = [question for part in parts for question in part]
    plans = list(runners.plans)
    episodes = [e for rollouts, how, _ in plans for e in runners.sample(rollouts, sampling=how)]
    answers = {
        q: completion_of(q, e, asked.problem_set) for q, e in zip(questions, episodes, strict=True)
    }
    # As the command writes its options, with k among those that it reports.
    options = EvaluationOptions(num_samples=2, seeds=(0,), breakdown=()).of_protocol(1)
    collected = scores.collect(asked.problems, answers, options, Votes(asked.problem_set.settings))
    found = scores.score(collected, options, max_response_tokens=8)["overall"]
    names = {
        metrics.AVG_AT_K: "avg@2",
        metrics.PASS_AT_K: "pass@2",
        metrics.MAJ_AT_K: "maj@2",
        metrics.GREEDY_ACCURACY: "greedy_pass@1",
        metrics.RESPONSE_LENGTH_MEAN: "response_length",
        metrics.TRUNCATED_FRACTION: "truncated_fraction",
        metrics.GREEDY_RESPONSE_LENGTH_MEAN: "greedy_response_length",
        metrics.GREEDY_TRUNCATED_FRACTION: "greedy_truncated_fraction",
    }
    for ours, theirs in names.items():
        three = [results[ours + end] for end in ("", metrics.LOW, metrics.HIGH)]
        assert three == [found[theirs][key] for key in ("mean", "low", "high")], ours
    assert (
        results[metrics.AVG_AT_K + metrics.LOW] < 1 / 3 < results[metrics.AVG_AT_K + metrics.HIGH]
    )
    assert set(found) - set(names.values()) == {"pass@1"}


def test_a_reward_for_a_wrong_answer_does_not_count_as_solved():
    answers = {"a": [(0.1, "WRONG", 1), (0.1, "UNPARSEABLE", 1), (0.1, "WRONG", 1)]}
    results = evaluate_problems(TableAlgorithm(answers), problems("a"), num_samples=2)
    assert results[metrics.AVG_AT_K] == results[metrics.PASS_AT_K] == 0.0
    assert results[metrics.SAMPLE_REWARD_MEAN] == pytest.approx(0.1)


def test_a_correct_answer_counts_as_solved_whatever_its_reward():
    answers = {"a": [(0.0, "CORRECT", 1), (0.0, "WRONG", 1)]}
    results = evaluate_problems(TableAlgorithm(answers), problems("a"), num_samples=1)
    assert results[metrics.PASS_AT_K] == 1.0


def test_numbers_of_a_verifier_count_as_solved_above_zero():
    answers = {"a": [(-0.5, "SCORED", 1)] * 2, "b": [(0.25, "SCORED", 1)] * 2}
    results = evaluate_problems(TableAlgorithm(answers), problems("a", "b"), num_samples=1)
    assert results[metrics.PASS_AT_K] == results[metrics.AVG_AT_K] == 0.5
    assert results[metrics.SAMPLE_REWARD_MEAN] == pytest.approx(-0.125)


def test_nothing_to_evaluate_is_an_error():
    for names, num_samples in (((), 2), (("a",), 0)):
        with pytest.raises(ValueError, match="Nothing to evaluate"):
            evaluate_problems(TableAlgorithm(), problems(*names), num_samples=num_samples)


def test_rollouts_have_no_prefix_and_draws_of_seed_problem_and_attempt():
    algorithm = TableAlgorithm(seed=3)
    evaluate_problems(algorithm, problems("a", "b"), num_samples=2)
    (greedy, how_greedy, _), (sampled, how, _) = algorithm.env_runners.plans
    assert (how.temperature, how_greedy.temperature) == (None, 0.0)
    assert [(r.problem_id, r.member) for r in sampled] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert [(r.problem_id, r.member) for r in greedy] == [("a", 0), ("b", 0)]
    assert not any(rollout.has_prefix for rollout in sampled)
    for rollout in sampled:
        key = ("evaluation", 3, rollout.problem_id, rollout.member)
        assert rollout.seed == stable_hash(*key)


def test_draws_depend_on_nothing_else():
    def seeds(names, **changes):
        runners = TableEnvRunners(ANSWERS)
        evaluate_set(runners, asked_set(*names, **changes))
        plans = [rollouts for rollouts, how, _ in runners.plans if how.temperature != 0.0]
        return {(r.problem_id, r.member): r.seed for rollouts in plans for r in rollouts}

    expected = seeds("abc")["b", 1]
    assert seeds("b")["b", 1] == expected
    assert seeds("b", sampling=Sampling(temperature=0.6))["b", 1] == expected
    assert seeds("ba", greedy=False)["b", 1] == expected
    assert seeds("b", seed=1)["b", 1] != expected


def test_a_set_is_asked_as_its_settings_say():
    runners = TableEnvRunners(ANSWERS)
    sampling = Sampling(temperature=0.6, top_p=0.9, max_response_tokens=4, env_config={"data": "x"})
    evaluate_set(runners, asked_set("a", sampling=sampling))
    (_, greedy, _), (_, sampled, _) = runners.plans
    assert sampled == sampling
    assert greedy == Sampling(
        temperature=0.0, top_p=0.9, max_response_tokens=4, env_config={"data": "x"}
    )


@pytest.mark.parametrize(
    ("changes", "there", "missing"),
    [
        ({"num_samples": 0}, metrics.GREEDY_ACCURACY, metrics.AVG_AT_K),
        ({"greedy": False}, metrics.AVG_AT_K, metrics.GREEDY_ACCURACY),
        ({"num_samples": 1}, metrics.PASS_AT_K, metrics.MAJ_AT_K),
    ],
)
def test_what_was_not_asked_has_no_metric(changes, there, missing):
    results = evaluate_set(TableEnvRunners(ANSWERS), asked_set("a", **changes))
    assert there in results
    assert missing not in results


def test_calls_are_no_larger_than_an_env_runner_can_hold(monkeypatch):
    monkeypatch.setattr(held_out, "ATTEMPTS_PER_CALL", 3)
    runners = TableEnvRunners(ANSWERS)
    whole = evaluate_set(TableEnvRunners(ANSWERS), asked_set("a", "b", "c"))
    assert evaluate_set(runners, asked_set("a", "b", "c")) == whole
    assert [len(rollouts) for rollouts, _, _ in runners.plans] == [3, 3, 3]


def test_every_set_is_evaluated_outside_of_the_training_metrics():
    algorithm = TableAlgorithm()
    results, num_env_steps, num_agent_steps = evaluate_held_out(algorithm)
    assert list(results) == ["easy", "hard"]
    assert results["hard"][metrics.AVG_AT_K] == 1 / 4
    assert (num_env_steps, num_agent_steps) == (0, 0)
    assert all(key is None for _, _, key in algorithm.env_runners.plans)
