"""Sets and probes evaluated during training, on the training env runners and on others."""

import json
import math
import signal

import numpy as np
import pytest
import torch
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.utils.metrics import EVALUATION_RESULTS
from transformers import AutoModelForCausalLM

from prefix_rft_rllib import metrics
from prefix_rft_rllib.envs import load_problem_set
from prefix_rft_rllib.evaluate import EvaluationOptions, evaluate
from prefix_rft_rllib.evaluation import evaluate_held_out
from prefix_rft_rllib.evaluation.demonstration_probes import chosen_probes
from prefix_rft_rllib.runs.checkpoints import checkpoint_path, newest_checkpoint
from prefix_rft_rllib.runs.run_directory import read_metrics
from tests.algorithm_runs import numbers_of, signal_before, weights_of
from tests.small_configs import HELD_OUT

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]

NUM_BENCHMARK, BUDGET = 5, 12
PROBES = {"train": 4, "new": 2}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory) -> str:
    """A file of problems that are not the run's."""
    file = tmp_path_factory.mktemp("benchmark") / "sums.jsonl"
    rows = [{"prompt": f"{i} + 3 ?", "answer": str(i + 3)} for i in range(NUM_BENCHMARK)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture(scope="module")
def make_evaluated(make_config, benchmark):
    """Settings of a run that evaluates a held-out set, a benchmark and probes at each iteration."""

    def make(**evaluation):
        sets = {
            "new": {"num_samples": 2, "temperature": 0.6, "top_p": 0.9, "num_problems": 2},
            "sums": {"benchmark": benchmark, "num_samples": 3, "max_response_tokens": BUDGET},
        }
        config = make_config({"held_out_data": HELD_OUT})
        return config.evaluation(
            **{
                "evaluation_interval": 1,
                "evaluation_sets": sets,
                "demonstration_probes": PROBES,
                **evaluation,
            }
        )

    return make


@pytest.fixture(scope="module")
def sequential(make_evaluated, tmp_path_factory) -> dict:
    """Evaluations on the training runner: before training, and after each of two iterations."""
    run_dir = tmp_path_factory.mktemp("sequential")
    algo = make_evaluated().reporting(run_dir=str(run_dir)).build_algo()
    evaluations, numbers = [algo.evaluate()], {}
    for iteration in (1, 2):
        result = algo.train()
        evaluations.append(result[EVALUATION_RESULTS])
        numbers[iteration] = numbers_of(result)
    again = algo.evaluate()
    found = {
        "evaluations": evaluations,
        "again": again,
        "numbers": numbers,
        "weights": weights_of(algo),
        "rows": read_metrics(run_dir),
        "probes": chosen_probes(algo.problem_set, PROBES, algo.config.seed),
        "model": str(algo.save_pretrained(run_dir / "model")),
    }
    algo.stop()
    return found


def without_probes(results: dict) -> dict:
    """The results of the sets that are asked, those of demonstrations left out."""
    return {
        name: {key: value for key, value in results[name].items() if "demonstration" not in key}
        for name in ("new", "sums")
    }


def test_evaluations_change_nothing_in_training_to_the_last_bit(sequential, run):
    for iteration, numbers in sequential["numbers"].items():
        assert numbers == run.numbers[iteration]
    for name, value in sequential["weights"].items():
        np.testing.assert_array_equal(value, run.weights[2][name])


def test_an_evaluation_depends_on_the_weights_alone(sequential):
    assert sequential["again"] == sequential["evaluations"][2]
    assert sequential["evaluations"][1] != sequential["evaluations"][2]


def test_each_set_is_asked_by_its_own_settings_and_written(sequential):
    new, sums = (sequential["evaluations"][2][name] for name in ("new", "sums"))
    assert (new[metrics.NUM_PROBLEMS], new[metrics.NUM_SAMPLES]) == (2, 2)
    assert (sums[metrics.NUM_PROBLEMS], sums[metrics.NUM_SAMPLES]) == (NUM_BENCHMARK, 3)
    assert sums[metrics.RESPONSE_LENGTH_MEAN] <= BUDGET < new[metrics.RESPONSE_LENGTH_MEAN]
    assert sum(sums[metrics.VERDICTS].values()) == (3 + 1) * NUM_BENCHMARK
    assert "CORRECT" in new[metrics.VERDICTS], "by the run's verifier"
    written = {k: v for k, v in sequential["rows"][1].items() if k.startswith("evaluation/")}
    assert written == metrics.flatten({"evaluation": sequential["evaluations"][2]})
    assert f"evaluation/train/{metrics.DEMONSTRATION_NLL}" in written


def test_a_benchmark_is_asked_as_the_command_asks_it(sequential, benchmark, tmp_path):
    options = EvaluationOptions(
        num_samples=0, max_prompt_tokens=64, max_response_tokens=BUDGET, breakdown=()
    )
    results = evaluate(sequential["model"], [benchmark], tmp_path, options=options)
    expected = results["benchmarks"]["sums"]["overall"]
    ours = sequential["evaluations"][2]["sums"]
    for name, theirs in (
        (metrics.GREEDY_ACCURACY, "greedy_pass@1"),
        (metrics.GREEDY_RESPONSE_LENGTH_MEAN, "greedy_response_length"),
        (metrics.GREEDY_TRUNCATED_FRACTION, "greedy_truncated_fraction"),
    ):
        ends = ("", metrics.LOW, metrics.HIGH)
        found = [expected[theirs][key] for key in ("mean", "low", "high")]
        assert [ours[name + end] for end in ends] == found


@torch.no_grad()
def test_probes_are_the_likelihood_that_plain_transformers_gives(sequential):
    model = AutoModelForCausalLM.from_pretrained(sequential["model"]).double()
    for probe in sequential["probes"]:
        losses, num_tokens = [], 0
        for prompt, demonstration in probe.rows:
            ids = torch.tensor([*prompt.tolist(), *demonstration.tolist()])
            logps = model(ids[None]).logits[0].log_softmax(-1)
            places = range(len(prompt) - 1, len(ids) - 1)
            losses.append(-sum(float(logps[i, ids[i + 1]]) for i in places))
            num_tokens += len(demonstration)
        found = sequential["evaluations"][2][probe.name]
        assert found[metrics.NUM_DEMONSTRATIONS] == PROBES[probe.name] == len(losses)
        mean = math.fsum(losses) / len(losses)
        assert found[metrics.DEMONSTRATION_NLL] == pytest.approx(mean, rel=1e-5)
        per_token = math.fsum(losses) / num_tokens
        assert found[metrics.DEMONSTRATION_NLL_PER_TOKEN] == pytest.approx(per_token, rel=1e-5)


def test_the_choice_of_probes_is_a_function_of_the_seed(make_evaluated):
    problem_set = load_problem_set(make_evaluated().token_env_config())

    def chosen(count, seed):
        (probe,) = chosen_probes(problem_set, {"train": count}, seed)
        return [tuple(demonstration.tolist()) for _, demonstration in probe.rows]

    assert chosen(4, 3) == chosen(8, 3)[:4]
    assert chosen(4, 3) != chosen(4, 4)
    with pytest.raises(ValueError, match=r"`demonstration_probes\['new'\]` is 4, but 3 problems"):
        chosen_probes(problem_set, {"new": 4}, 0)


class Ends(RLlibCallback):
    """Keeps what `on_evaluate_end` was given."""

    seen: list = []  # noqa: RUF012

    def on_evaluate_start(self, *, algorithm, **kwargs):
        self.seen.append(algorithm.iteration)

    def on_evaluate_end(self, *, evaluation_metrics, **kwargs):
        self.seen.append(evaluation_metrics)


def test_evaluation_env_runners_evaluate_the_weights_before_an_iteration_in_parallel_to_it(
    make_evaluated, sequential, run, tmp_path, monkeypatch
):
    config = make_evaluated(evaluation_num_env_runners=1, evaluation_parallel_to_training=True)
    algo = config.callbacks(Ends).reporting(run_dir=str(tmp_path)).build_algo()
    try:
        for iteration in (1, 2):
            result = algo.train()
            assert numbers_of(result) == pytest.approx(run.numbers[iteration], rel=1e-6, abs=1e-7)
            found = result[EVALUATION_RESULTS]
            expected = sequential["evaluations"][iteration - 1]
            assert without_probes(found) == without_probes(expected)
            for name in PROBES:
                key = metrics.DEMONSTRATION_NLL
                assert found[name][key] == pytest.approx(expected[name][key], rel=1e-6)
        # By hand, after the last iteration, with env runners that were lost meanwhile.
        (runner_id,) = algo._evaluation_env_runners.healthy_ids
        algo._evaluation_env_runners.end([runner_id])
        results, _, _ = evaluate_held_out(algo)
        assert results == without_probes(sequential["evaluations"][2])
        assert [seen for seen in Ends.seen if isinstance(seen, int)] == [0, 1]
        # A signal while it samples and evaluates at once: the iteration is completed.
        signal_before(monkeypatch, algo.env_runners, "_sample_once", signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            algo.train()
        assert (algo.iteration, algo._taken) == (3, None)
        assert [row["training_iteration"] for row in read_metrics(tmp_path)] == [1, 2, 3]
    finally:
        algo.stop()


@pytest.mark.parametrize("moment", ["evaluate", "_take_weights"])
def test_a_signal_in_parallel_to_training_gives_up_the_evaluation_alone(
    make_evaluated, sequential, run, tmp_path, monkeypatch, moment
):
    config = make_evaluated(evaluation_num_env_runners=1, evaluation_parallel_to_training=True)
    algo = config.reporting(run_dir=str(tmp_path)).checkpointing(every=100).build_algo()
    try:
        signal_before(monkeypatch, algo, moment, signal.SIGTERM)
        with pytest.raises(SystemExit):
            algo.train()
        assert algo.iteration == 1
        assert newest_checkpoint(tmp_path) == checkpoint_path(tmp_path, 1)
        (row,) = read_metrics(tmp_path)
        assert not [key for key in row if key.startswith("evaluation/")]
        # The weights are those after the iteration, not those that the evaluation was to have.
        found = without_probes(algo.evaluate())
        assert found == without_probes(sequential["evaluations"][1])
        result = algo.train()
        assert numbers_of(result) == pytest.approx(run.numbers[2], rel=1e-6, abs=1e-7)
        assert without_probes(result[EVALUATION_RESULTS]) == found
    finally:
        algo.stop()
