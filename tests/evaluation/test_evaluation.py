"""Accuracy on held-out problems, with an algorithm that answers from a table."""

from types import SimpleNamespace

import pytest
from ray.rllib.utils.metrics import EVALUATION_RESULTS
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from prefix_rft_rllib import metrics
from prefix_rft_rllib.evaluation.held_out import evaluate_held_out, evaluate_problems
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.row_data import build_episode

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

    def sample(self, rollouts, *, temperature=None, key=None):
        self.plans.append((list(rollouts), temperature, key))
        return [self.episode(rollout, temperature) for rollout in rollouts]

    def episode(self, rollout, temperature):
        table = self.answers[rollout.problem_id]
        reward, verdict, length = table[-1 if temperature == 0.0 else rollout.member]
        data = {row_data.ROLLOUT: rollout, row_data.VERDICT: verdict}
        return build_episode([1], [2] * length, reward=reward, custom_data=data)


class TableAlgorithm:
    """An algorithm whose env runners answer from a table."""

    def __init__(self, answers=ANSWERS, seed=0):
        self.config = SimpleNamespace(seed=seed, held_out_num_samples=2)
        self.env_runners = TableEnvRunners(answers)
        self.problem_set = SimpleNamespace(
            held_out={"easy": problems("a"), "hard": problems("b", "c")}
        )
        self.metrics = MetricsLogger(root=True)


def problems(*names):
    return [SimpleNamespace(problem_id=name) for name in names]


def test_accuracy_by_hand():
    results = evaluate_problems(TableAlgorithm(), problems("a", "b", "c"), num_samples=2)
    assert results == pytest.approx(
        {
            metrics.AVG_AT_K: 2 / 6,  # a: 1, 0; b: 0, 0; c: 0, 1
            metrics.PASS_AT_K: 2 / 3,  # a and c
            metrics.GREEDY_ACCURACY: 2 / 3,  # a and b
            metrics.RESPONSE_LENGTH_MEAN: (3 + 5 + 2 + 2 + 4 + 6) / 6,
        },
        rel=1e-12,
    )


def test_a_reward_for_a_wrong_answer_does_not_count_as_solved():
    answers = {"a": [(0.1, "WRONG", 1), (0.1, "UNPARSEABLE", 1), (0.1, "WRONG", 1)]}
    results = evaluate_problems(TableAlgorithm(answers), problems("a"), num_samples=2)
    assert results[metrics.PASS_AT_K] == 0.0
    assert results[metrics.AVG_AT_K] == pytest.approx(0.1)


def test_a_correct_answer_counts_as_solved_whatever_its_reward():
    answers = {"a": [(0.0, "CORRECT", 1), (0.0, "WRONG", 1)]}
    results = evaluate_problems(TableAlgorithm(answers), problems("a"), num_samples=1)
    assert results[metrics.PASS_AT_K] == 1.0


def test_numbers_of_a_verifier_count_as_solved_above_zero():
    answers = {"a": [(-0.5, "SCORED", 1)] * 2, "b": [(0.25, "SCORED", 1)] * 2}
    results = evaluate_problems(TableAlgorithm(answers), problems("a", "b"), num_samples=1)
    assert results[metrics.PASS_AT_K] == 0.5
    assert results[metrics.AVG_AT_K] == pytest.approx(-0.125)


def test_nothing_to_evaluate_is_an_error():
    for names, num_samples in (((), 2), (("a",), 0)):
        with pytest.raises(ValueError, match="Nothing to evaluate"):
            evaluate_problems(TableAlgorithm(), problems(*names), num_samples=num_samples)


def test_rollouts_have_no_prefix_and_seeds_of_their_own():
    algorithm = TableAlgorithm()
    evaluate_problems(algorithm, problems("a", "b"), num_samples=2)
    (sampled, temperature, _), (greedy, greedy_temperature, _) = algorithm.env_runners.plans
    assert (temperature, greedy_temperature) == (None, 0.0)
    assert [(r.problem_id, r.member) for r in sampled] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert [(r.problem_id, r.member) for r in greedy] == [("a", 0), ("b", 0)]
    assert not any(rollout.has_prefix for rollout in sampled)
    assert len({rollout.seed for rollout in sampled}) == 4


def test_draws_depend_on_seed_and_problem_only():
    def seeds(names, seed=0):
        algorithm = TableAlgorithm(seed=seed)
        evaluate_problems(algorithm, problems(*names), num_samples=2)
        return {(r.problem_id, r.member): r.seed for r in algorithm.env_runners.plans[0][0]}

    assert seeds("abc")["b", 1] == seeds("b")["b", 1]
    assert seeds("b")["b", 1] != seeds("b", seed=1)["b", 1]


def test_every_held_out_set_is_evaluated_and_reaches_rllibs_results():
    algorithm = TableAlgorithm()
    results, num_env_steps, num_agent_steps = evaluate_held_out(algorithm)
    assert list(results) == ["easy", "hard"]
    assert results["hard"][metrics.AVG_AT_K] == 1 / 4
    assert (num_env_steps, num_agent_steps) == (0, 0)
    assert all(
        key is None for _, _, key in algorithm.env_runners.plans
    )  # not among training metrics
    logged = algorithm.metrics.peek((EVALUATION_RESULTS, "hard", metrics.AVG_AT_K))
    assert logged == 1 / 4
