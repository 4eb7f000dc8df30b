"""The algorithm in one process: iterations, methods, evaluation, the saved model."""

import math
from pathlib import Path

import pytest
import torch
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EVALUATION_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
)
from ray.tune.trainable import trainable
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefix_rft_rllib import metrics
from prefix_rft_rllib.runs.run_directory import read_metrics, read_minibatches, read_rollouts
from tests.algorithm_runs import (
    NUM_ITERATIONS,
    assert_evaluates,
    assert_same_weights,
    numbers_of,
)
from tests.runs.test_run_directory_docs import documented_rows
from tests.small_configs import HELD_OUT, MAX_RESPONSE_TOKENS

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]


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


def test_every_optimizer_step_has_the_documented_fields(run):
    documented = set(documented_rows("Optimizer steps"))
    assert all(row.keys() == documented for row in read_minibatches(run.run_dir))


def test_each_iteration_has_its_own_plan(run):
    plans = [[rollout[:6] for rollout in run.rollouts[i]] for i in (1, 2, 3)]
    assert plans[0] != plans[1] != plans[2]
    # 12 problems, 4 per iteration: three iterations meet every problem once.
    assert len({rollout[0] for plan in plans for rollout in plan}) == 12


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
    last = algo.train()
    rows = read_metrics(tmp_path)
    written = {key: value for key, value in rows[1].items() if key.startswith("evaluation/")}
    assert written == metrics.flatten({"evaluation": {"new": in_result}})
    assert {"evaluation/new/avg_at_k", "evaluation/new/avg_at_k_low"} < written.keys()
    for row in (rows[0], rows[2]):
        assert not [key for key in row if key.startswith("evaluation/")]
    assert EVALUATION_RESULTS not in last  # RLlib's own would repeat it
    # The training runner answers: no other one is made.
    assert algo.eval_env_runner_group is None
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


def test_evaluate_works_without_an_interval(local_algo):
    assert_evaluates(local_algo)


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
    groups = local_algo._plan(local_algo.iteration).groups()
    plan = [r for g in groups for r in g.planned if not r.has_prefix][::3]
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
    assert algo._recorder._run._events is None
    open_files = {link.resolve() for link in Path("/proc/self/fd").iterdir() if link.exists()}
    assert not [file for file in open_files if tmp_path in file.parents]


def test_rllibs_place_for_results_is_used_only_without_a_run_dir(
    make_config, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainable, "DEFAULT_STORAGE_PATH", str(tmp_path / "results"))
    algo = make_config().reporting(run_dir=str(tmp_path / "run")).build_algo()
    algo.stop()
    assert algo.logdir == str(tmp_path / "run")
    assert not (tmp_path / "results").exists()
    (tmp_path / "results").touch()  # a home that cannot be written
    with pytest.raises(ValueError, match=r"`run_dir` is not set.*results"):
        make_config().build_algo()
