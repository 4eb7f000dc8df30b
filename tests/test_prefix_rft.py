"""The algorithm as a whole: iterations, env runners, learners, checkpoints, evaluation."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EVALUATION_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefix_rft_rllib import PrefixRFT, metrics
from prefix_rft_rllib.evaluation import evaluate_problems
from prefix_rft_rllib.run_directory import read_metrics, read_minibatches, read_rollouts
from tests.small_configs import BROKEN, HELD_OUT, MAX_RESPONSE_TOKENS

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]

NUM_ITERATIONS = 3
ROLLOUT_FIELDS = (
    "problem_id",
    "group_id",
    "member",
    "prefix_fraction",
    "num_prefix_tokens",
    "was_cut",
    "minibatch",
    "verdict",
    "advantage",
    "response_ids",
)
"""What must be equal for the same plan and the same weights."""


@dataclasses.dataclass
class Run:
    """What an uninterrupted run did, by iteration from 1."""

    numbers: dict[int, dict[str, float]]
    rollouts: dict[int, list]
    weights: dict[int, dict[str, np.ndarray]]
    checkpoints: dict[int, str]
    run_dir: Path
    model_dir: Path


def numbers_of(result: dict[str, Any]) -> dict[str, float]:
    """This project's metrics of one iteration, without times."""
    learner = result["learners"][DEFAULT_MODULE_ID]
    own = {key: learner[key] for key in metrics.LEARNER_METRICS if key in learner}
    return metrics.flatten({"rollouts": result[metrics.ROLLOUTS], "learner": own})


def weights_of(algo: PrefixRFT) -> dict[str, np.ndarray]:
    weights = algo.learner_group.get_weights()[DEFAULT_MODULE_ID]
    return {name: np.array(value) for name, value in weights.items()}


def rollouts_of(run_dir: str | Path, iteration: int) -> list:
    records = read_rollouts(Path(run_dir) / "rollouts" / f"iteration_{iteration:06d}.jsonl.gz")
    return [[getattr(record, name) for name in ROLLOUT_FIELDS] for record in records]


def assert_close(numbers: dict[str, float], expected: dict[str, float]) -> None:
    """Equal up to float32 rounding, which differs between batch shapes and processes."""
    assert numbers.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = 1e-4 if "engine_logp_gap" in name else 2e-5
        assert numbers[name] == pytest.approx(value, rel=2e-4, abs=tolerance), name


def assert_same_weights(weights: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(weights[name], value, rtol=0, atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def run(cluster, make_config, tmp_path_factory) -> Run:
    """Three iterations in the driver, nothing disturbed."""
    run_dir = tmp_path_factory.mktemp("reference")
    config = make_config().reporting(run_dir=str(run_dir), num_logged_groups=4)
    algo = config.build_algo()
    done = Run({}, {}, {}, {}, run_dir, run_dir / "model")
    for _ in range(NUM_ITERATIONS):
        result = algo.train()
        iteration = result["training_iteration"]
        done.numbers[iteration] = numbers_of(result)
        done.rollouts[iteration] = rollouts_of(run_dir, iteration)
        done.weights[iteration] = weights_of(algo)
        done.checkpoints[iteration] = algo.save_to_path(str(run_dir / f"checkpoint_{iteration}"))
    algo.save_pretrained(done.model_dir)
    algo.stop()
    return done


def test_the_reference_run_has_something_to_learn_from(run):
    for numbers in run.numbers.values():
        assert numbers["rollouts/num_groups"] == 4
        assert numbers["rollouts/num_rollouts"] == 16
        assert numbers["rollouts/num_prefix_rollouts"] >= 3
        assert numbers["rollouts/num_groups_with_signal"] >= 1
        assert numbers["learner/num_optimizer_steps"] == 2
        assert numbers["learner/grad_norm"] > 0
    windows = [numbers["rollouts/prefix_window_low"] for numbers in run.numbers.values()]
    # The window falls from 0.95 to 0.05 in 4 iterations: 0.05 + 0.9 * (1 + cos(pi t / 4)) / 2.
    expected = [0.05 + 0.45 * (1 + math.cos(math.pi * t / 4)) for t in range(3)]
    assert windows == pytest.approx(expected, abs=1e-9)


def test_every_minibatch_keeps_exactly_the_share_of_its_prefix_tokens(run):
    minibatches = read_minibatches(run.run_dir)
    assert len(minibatches) == 2 * NUM_ITERATIONS
    kept = 0
    for minibatch in minibatches:
        (prefix,) = [s for s in minibatch["selections"] if s["region"] == "prefix"]
        assert prefix["num_kept_tokens"] == math.ceil(0.2 * prefix["num_region_tokens"])
        kept += prefix["num_kept_tokens"]
    total = sum(numbers["learner/num_kept_prefix_tokens"] for numbers in run.numbers.values())
    assert kept == total > 0


def test_the_run_directory_has_every_iteration(run):
    rows = read_metrics(run.run_dir)
    assert [row["training_iteration"] for row in rows] == [1, 2, 3]
    for row in rows:
        numbers = run.numbers[row["training_iteration"]]
        assert {key: row[key] for key in numbers} == pytest.approx(numbers)
        assert row["time/sampling"] > 0
        assert row["time/tokens_per_second"] > 0
    assert (run.run_dir / "config.json").is_file()
    assert list(run.run_dir.glob("events.out.tfevents*"))
    assert len(run.rollouts[1]) == 16


def test_each_iteration_has_its_own_plan(run):
    plans = [[rollout[:6] for rollout in run.rollouts[i]] for i in (1, 2, 3)]
    assert plans[0] != plans[1] != plans[2]
    # 12 problems, 4 per iteration: three iterations meet every problem once.
    assert len({rollout[0] for plan in plans for rollout in plan}) == 12


# --- Restoring. ----------------------------------------------------------------------------------


def test_a_restored_run_continues_exactly_like_an_uninterrupted_one(run, tmp_path):
    algo = PrefixRFT.from_checkpoint(run.checkpoints[1])
    assert algo.iteration == 1
    assert_same_weights(weights_of(algo), run.weights[1])
    for iteration in (2, 3):
        result = algo.train()
        assert result["training_iteration"] == iteration
        assert numbers_of(result) == pytest.approx(run.numbers[iteration], rel=1e-6, abs=1e-7)
        assert rollouts_of(run.run_dir, iteration) == run.rollouts[iteration]
        assert_same_weights(weights_of(algo), run.weights[iteration])
    algo.stop()
    # It went on in the same run directory, as if it had not been interrupted.
    assert [row["training_iteration"] for row in read_metrics(run.run_dir)] == [1, 2, 3]
    assert len(read_minibatches(run.run_dir)) == 6


@pytest.fixture(scope="module")
def local_algo(cluster, run, make_config, tmp_path_factory):
    """An algorithm in the driver that tests bring to the state they need."""
    run_dir = tmp_path_factory.mktemp("local")
    algo = make_config().reporting(run_dir=str(run_dir), num_logged_groups=4).build_algo()
    yield algo
    algo.stop()


def test_rolling_back_a_live_algorithm_gives_its_runner_the_older_weights(local_algo, run):
    local_algo.restore_from_path(run.checkpoints[2])
    local_algo.train()
    local_algo.restore_from_path(run.checkpoints[1])
    assert local_algo.iteration == 1
    assert_same_weights(weights_of(local_algo), run.weights[1])
    result = local_algo.train()
    assert numbers_of(result) == pytest.approx(run.numbers[2], rel=1e-6, abs=1e-7)
    assert rollouts_of(local_algo.config.run_dir, 2) == run.rollouts[2]


def test_restoring_the_model_alone_reaches_the_runner(local_algo, run):
    # The number of the weights stays the same: the runner must take them all the same.
    local_algo.restore_from_path(run.checkpoints[1])
    component = f"learner_group/learner/rl_module/{DEFAULT_MODULE_ID}"
    local_algo.restore_from_path(f"{run.checkpoints[3]}/{component}", component=component)
    assert_same_weights(weights_of(local_algo), run.weights[3])
    assert_engine_has(local_algo.env_runner, run.weights[3])


def assert_engine_has(runner, weights: dict[str, np.ndarray]) -> None:
    own = runner.engine._open_model().state_dict()
    assert_same_weights({name: own[name].numpy() for name in weights}, weights)


# --- Env runners and learners. -------------------------------------------------------------------


class CallbackLog:
    """An actor that counts callbacks by name."""

    def __init__(self):
        self.counts = {}

    def add(self, name, amount=1):
        self.counts[name] = self.counts.get(name, 0) + amount

    def take(self):
        counts, self.counts = self.counts, {}
        return counts


class Marker(RLlibCallback):
    """Reports RLlib's callbacks to a named actor."""

    def __init__(self):
        self.log = ray.get_actor("callback_log")

    def on_episode_end(self, *, episode, metrics_logger, **kwargs):
        metrics_logger.log_value("longest", len(episode), reduce="max")
        ray.get(self.log.add.remote("episode_end"))

    def on_sample_end(self, *, samples, **kwargs):
        ray.get(self.log.add.remote("sample_end"))
        ray.get(self.log.add.remote("sampled", len(samples)))

    def on_train_result(self, *, algorithm, result, **kwargs):
        result["my_key"] = algorithm.iteration
        ray.get(self.log.add.remote("train_result"))


@pytest.fixture(scope="module")
def remote_algo(cluster, run, make_config, tmp_path_factory):
    """An algorithm with two remote env runners; tests restore it to the state they need."""
    log = ray.remote(num_cpus=0)(CallbackLog).options(name="callback_log").remote()
    run_dir = tmp_path_factory.mktemp("remote")
    config = make_config().env_runners(num_env_runners=2).callbacks(Marker)
    algo = config.reporting(run_dir=str(run_dir), num_logged_groups=4).build_algo()
    start = algo.save_to_path(str(run_dir / "start"))
    yield algo, start, log
    algo.stop()


def test_two_remote_env_runners_give_the_same_run_and_callbacks_fire(remote_algo, run):
    algo, start, log = remote_algo
    algo.restore_from_path(start)
    ray.get(log.take.remote())
    result = algo.train()
    assert_close(numbers_of(result), run.numbers[1])
    assert_same_rollouts(algo.config.run_dir, 1, run)
    counts = ray.get(log.take.remote())
    assert counts == {"episode_end": 16, "sample_end": 2, "sampled": 16, "train_result": 1}
    assert result["my_key"] == 1
    lengths = [len(rollout[-1]) for rollout in run.rollouts[1]]
    assert result[ENV_RUNNER_RESULTS]["longest"] == max(lengths)
    assert result[ENV_RUNNER_RESULTS][NUM_EPISODES] == 16
    sampled = run.numbers[1]["rollouts/num_sampled_tokens"]
    assert result[ENV_RUNNER_RESULTS][NUM_ENV_STEPS_SAMPLED_LIFETIME] == sampled


def assert_same_rollouts(run_dir, iteration: int, run: Run) -> None:
    """Everything that comes from the plan is equal; advantages up to rounding."""
    own, expected = rollouts_of(run_dir, iteration), run.rollouts[iteration]
    advantage = ROLLOUT_FIELDS.index("advantage")
    assert [r[:advantage] + r[advantage + 1 :] for r in own] == [
        r[:advantage] + r[advantage + 1 :] for r in expected
    ]
    assert [r[advantage] for r in own] == pytest.approx([r[advantage] for r in expected])


def test_an_iteration_with_a_killed_env_runner_equals_the_undisturbed_one(remote_algo, run):
    algo, start, _ = remote_algo
    algo.restore_from_path(start)
    algo.train()
    victim = algo.env_runner_group._worker_manager.actors()[1]
    ray.kill(victim, no_restart=False)
    result = algo.train()
    assert_close(numbers_of(result), run.numbers[2])
    assert_same_rollouts(algo.config.run_dir, 2, run)
    # The runner comes back with the newest weights and the run goes on as if nothing had been.
    while algo.env_runner_group.num_healthy_remote_env_runners() < 2:
        algo.restore_env_runners(algo.env_runner_group)
    result = algo.train()
    assert_close(numbers_of(result), run.numbers[3])


def test_an_iteration_survives_the_loss_of_all_env_runners(remote_algo, run):
    algo, start, _ = remote_algo
    algo.restore_from_path(start)
    algo.train()
    for victim in algo.env_runner_group._worker_manager.actors().values():
        ray.kill(victim, no_restart=False)
    assert_close(numbers_of(algo.train()), run.numbers[2])


def test_a_restored_algorithm_gives_remote_runners_the_restored_weights(remote_algo, run):
    algo, start, _ = remote_algo
    algo.restore_from_path(start)
    first = weights_of(algo)
    algo.train()
    path = algo.save_to_path(str(Path(algo.config.run_dir) / "after_one"))
    algo.train()
    for checkpoint, expected in ((path, run.weights[1]), (start, first)):
        algo.restore_from_path(checkpoint)
        checksums = algo.env_runner_group.foreach_env_runner(engine_checksum)
        assert checksums == pytest.approx([checksum(expected)] * 2, rel=1e-5)


def checksum(weights: dict[str, np.ndarray]) -> float:
    return float(sum(np.abs(value.astype(np.float64)).sum() for value in weights.values()))


def engine_checksum(runner) -> float:
    state = runner.engine._open_model().state_dict()
    return checksum({name: value.numpy() for name, value in state.items()})


def test_remote_learner_and_one_env_runner_give_the_same_run(run, make_config, tmp_path):
    config = make_config().env_runners(num_env_runners=1).learners(num_learners=1)
    algo = config.reporting(run_dir=str(tmp_path), num_logged_groups=4).build_algo()
    assert_close(numbers_of(algo.train()), run.numbers[1])
    assert_same_rollouts(tmp_path, 1, run)
    numbers = numbers_of(algo.train())
    assert_close(numbers, run.numbers[2])
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    algo.stop()
    # A checkpoint restores with another number of learners and env runners.
    local = make_config().reporting(run_dir=str(tmp_path), num_logged_groups=4)
    algo = PrefixRFT.from_checkpoint(path, config=local)
    assert_close(numbers_of(algo.train()), run.numbers[3])
    algo.stop()


def test_a_verifier_that_raises_leaves_its_runner_alive(make_config, tmp_path):
    config = make_config({"verifier": BROKEN}).env_runners(num_env_runners=1)
    algo = config.reporting(run_dir=str(tmp_path)).build_algo()
    numbers = numbers_of(algo.train())
    assert numbers["rollouts/verdicts/ERROR"] == numbers["rollouts/num_rollouts"] == 16
    assert numbers["rollouts/reward_mean"] == 0.0
    assert numbers["learner/grad_norm"] == 0.0
    assert numbers["learner/num_skipped_rows"] == 16
    assert algo.env_runner_group.num_healthy_remote_env_runners() == 1
    algo.stop()


# --- Methods, evaluation, export. ----------------------------------------------------------------


def test_rft_samples_without_prefixes(make_config, tmp_path):
    config = make_config(method="rft", method_config={}).reporting(run_dir=str(tmp_path))
    algo = config.build_algo()
    numbers = numbers_of(algo.train())
    assert numbers["rollouts/num_prefix_rollouts"] == 0
    assert numbers["rollouts/num_rollouts"] == 16
    assert numbers["learner/grad_norm"] > 0
    assert "rollouts/prefix_window_low" not in numbers
    algo.stop()


def test_sft_samples_nothing_and_lowers_its_loss(make_config, tmp_path):
    config = make_config(method="sft", method_config={}).reporting(run_dir=str(tmp_path))
    algo = config.training(num_problems_per_iteration=12).build_algo()
    losses = []
    for _ in range(3):
        numbers = numbers_of(algo.train())
        assert numbers["rollouts/num_rollouts"] == 0
        assert numbers["rollouts/num_groups"] == 12
        losses.append(numbers["learner/demonstration_loss"])
    assert losses[0] > losses[1] > losses[2]
    records = list(read_rollouts(tmp_path / "rollouts" / "iteration_000003.jsonl.gz"))
    assert {region for record in records for region in record.region} == {"demonstration"}
    assert {record.member for record in records} == {None}
    algo.stop()


def test_held_out_problems_are_evaluated_at_the_interval(make_config, tmp_path):
    config = make_config({"held_out_data": HELD_OUT}).evaluation(
        evaluation_interval=2, held_out_num_samples=2
    )
    algo = config.reporting(run_dir=str(tmp_path)).build_algo()
    assert "new" not in algo.train().get(EVALUATION_RESULTS, {})
    in_result = algo.train()[EVALUATION_RESULTS]["new"]
    algo.train()
    rows = read_metrics(tmp_path)
    keys = [key for key in rows[1] if key.startswith("evaluation/")]
    assert sorted(keys) == [
        "evaluation/new/avg_at_k",
        "evaluation/new/greedy_accuracy",
        "evaluation/new/pass_at_k",
        "evaluation/new/response_length_mean",
    ]
    for key in keys:
        assert rows[1][key] == in_result[key.rsplit("/", 1)[1]]
    # RLlib's result repeats an evaluation in the next iteration; the run directory does not.
    for row in (rows[0], rows[2]):
        assert not [key for key in row if key.startswith("evaluation/")]
    # Held-out problems are sampled by the training runner: the second one costs no model.
    assert algo.eval_env_runner_group.local_env_runner._engine is None
    algo.stop()


def test_evaluating_changes_nothing_in_training(run, make_config, tmp_path):
    config = make_config({"held_out_data": HELD_OUT}).evaluation(
        evaluation_interval=1, held_out_num_samples=1
    )
    algo = config.reporting(run_dir=str(tmp_path), num_logged_groups=4).build_algo()
    for iteration in (1, 2):
        result = algo.train()
        assert numbers_of(result) == pytest.approx(run.numbers[iteration], rel=1e-6, abs=1e-7)
    sampled = sum(run.numbers[i]["rollouts/num_sampled_tokens"] for i in (1, 2))
    assert result[ENV_RUNNER_RESULTS][NUM_ENV_STEPS_SAMPLED_LIFETIME] == sampled
    algo.stop()


def test_evaluate_works_without_an_interval(local_algo, remote_algo):
    for algo in (local_algo, remote_algo[0]):
        problems = algo.problem_set.train[:2]
        first = evaluate_problems(algo, problems, num_samples=2)
        assert first == evaluate_problems(algo, problems, num_samples=2)
        assert 0 <= first[metrics.AVG_AT_K] <= first[metrics.PASS_AT_K] <= 1
        assert algo.evaluate() is not None  # no problem is held out here: nothing to report


def test_rllibs_default_evaluation_works(make_config, tmp_path):
    config = make_config().evaluation(
        evaluation_interval=1,
        custom_evaluation_function=None,
        evaluation_duration=3,
        evaluation_config={"explore": False},
    )
    algo = config.reporting(run_dir=str(tmp_path)).build_algo()
    result = algo.evaluate()[ENV_RUNNER_RESULTS]
    assert result[NUM_EPISODES] == 3
    assert 0 <= result["episode_return_mean"] <= 1
    assert 1 <= result["episode_len_mean"] <= MAX_RESPONSE_TOKENS
    algo.train()
    algo.stop()


@torch.no_grad()
def test_the_saved_model_gives_the_engines_greedy_responses_with_plain_transformers(
    local_algo, run
):
    local_algo.restore_from_path(run.checkpoints[NUM_ITERATIONS])
    model = AutoModelForCausalLM.from_pretrained(run.model_dir)
    tokenizer = AutoTokenizer.from_pretrained(run.model_dir)
    state = model.state_dict()
    assert_same_weights(
        {name: state[name].numpy() for name in run.weights[3]}, run.weights[NUM_ITERATIONS]
    )
    problems = local_algo.problem_set.train
    plan = [r for g in local_algo._plan_step() for r in g.rollouts if not r.has_prefix][::3]
    episodes = local_algo.sample_rollouts(plan, temperature=0.0)
    by_id = {problem.problem_id: problem for problem in problems}
    for rollout, episode in zip(plan, episodes, strict=True):
        prompt = torch.tensor([by_id[rollout.problem_id].prompt_ids])
        output = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=MAX_RESPONSE_TOKENS,
        )
        response = output[0, prompt.shape[1] :].tolist()
        assert response == episode.get_actions().tolist()
    text = by_id[plan[0].problem_id].prompt
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    assert tuple(rendered) == by_id[plan[0].problem_id].prompt_ids


def test_stopping_closes_the_files_and_may_be_repeated(make_config, tmp_path):
    algo = make_config().reporting(run_dir=str(tmp_path)).build_algo()
    algo.train()
    algo.stop()
    algo.stop()
    assert algo._view._run._events is None
    open_files = {link.resolve() for link in Path("/proc/self/fd").iterdir() if link.exists()}
    assert not [file for file in open_files if tmp_path in file.parents]
