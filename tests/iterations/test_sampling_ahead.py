"""The next iteration is sampled during the update (`max_weight_staleness=1`)."""

import logging
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from prefix_rft_rllib import PrefixRFT, methods
from prefix_rft_rllib.methods import Method, Stage
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.runs.run_directory import read_rollouts
from tests.algorithm_runs import (
    assert_close,
    assert_same_rollouts,
    numbers_of,
    rollouts_of,
    train_undisturbed,
    weights_of,
)
from tests.small_configs import SELDOM_RIGHT

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]

AHEAD = {"max_weight_staleness": 1}
NUM_ITERATIONS = 3


@pytest.fixture(scope="module")
def ahead(cluster, make_config, tmp_path_factory):
    """An algorithm with two env runners that sample ahead, its undisturbed run and its start."""
    run_dir = tmp_path_factory.mktemp("ahead")
    config = make_config(**AHEAD).env_runners(num_env_runners=2)
    algo = config.reporting(run_dir=str(run_dir), num_logged_groups=4).build_algo()
    done = SimpleNamespace(algo=algo, run_dir=run_dir, numbers={}, rollouts={}, records={})
    done.weights, done.checkpoints = {}, {0: algo.save_to_path(str(run_dir / "start"))}
    for iteration in range(1, NUM_ITERATIONS + 1):
        done.numbers[iteration] = numbers_of(algo.train())
        done.rollouts[iteration] = rollouts_of(run_dir, iteration)
        path = run_dir / "rollouts" / f"iteration_{iteration:06d}.jsonl.gz"
        done.records[iteration] = read_rollouts(path)
        done.weights[iteration] = weights_of(algo)
        path = algo.save_to_path(str(run_dir / f"checkpoint_{iteration}"))
        done.checkpoints[iteration] = path
    yield done
    algo.stop()


def without_importance(numbers: dict) -> dict:
    return {name: v for name, v in numbers.items() if "importance_weight" not in name}


def test_the_first_iteration_is_on_policy_and_later_ones_lag_by_one_update(ahead):
    for iteration, numbers in ahead.numbers.items():
        lag = int(iteration > 1)
        assert numbers["rollouts/weight_staleness_mean"] == lag
        for record in ahead.records[iteration]:
            assert record.weight_staleness == lag
            # Update n starts from the weights of number n - 1.
            assert record.weights_seq_no == iteration - 1 - lag


def test_the_first_iteration_is_that_of_a_run_without_lag(ahead, run):
    # Every importance weight is 1 up to rounding there.
    assert_close(without_importance(ahead.numbers[1]), run.numbers[1])
    assert_same_rollouts(ahead.run_dir, 1, run)


def test_the_correction_differs_from_one_after_a_weight_change_only(ahead):
    fractions = []
    for iteration, numbers in ahead.numbers.items():
        mean = numbers["learner/importance_weight_mean"]
        fractions.append(numbers["learner/importance_weight_truncated_fraction"])
        assert (abs(mean - 1.0) < 1e-4) == (iteration == 1)
        for record in ahead.records[iteration]:
            if record.advantage == 0.0:
                continue
            triples = zip(record.old_logp, record.engine_logp, record.weight, strict=True)
            expected = [
                record.advantage * min(math.exp(old - engine), 2.0)
                for old, engine, _ in list(triples)[record.num_prefix_tokens :]
            ]
            given = record.weight[record.num_prefix_tokens :]
            assert given == pytest.approx(expected, rel=1e-5)
            # The engine never sampled the prefix.
            prefix = [w for w in record.weight[: record.num_prefix_tokens] if w != 0.0]
            assert prefix == pytest.approx([record.advantage] * len(prefix))
    assert fractions[0] == 0.0
    assert max(fractions) > 0.0


def test_responses_are_functions_of_the_plan_and_the_weights_version(ahead, local_algo, run):
    # The plan of iteration 2 is the one of a run without lag; its weights are the first ones.
    assert [r[:6] for r in ahead.rollouts[2]] == [r[:6] for r in run.rollouts[2]]
    plan = local_algo._plan(1)
    rollouts = [rollout for group in plan.groups() for rollout in group.planned]
    episodes = local_algo.sample_rollouts(rollouts)
    by_member = {(r.group_id, r.member): list(r.response_ids) for r in ahead.records[2]}
    assert len(by_member) == len(episodes) == 16
    for rollout, episode in zip(rollouts, episodes, strict=True):
        response = row_data.response_ids_of(episode).tolist()
        assert response == by_member[rollout.group_id, rollout.member]
    assert ahead.rollouts[2] != run.rollouts[2]


def continues(algo: PrefixRFT, ahead, first: int) -> None:
    for iteration in range(first, NUM_ITERATIONS + 1):
        assert numbers_of(algo.train()) == ahead.numbers[iteration]
        assert rollouts_of(algo.config.run_dir, iteration) == ahead.rollouts[iteration]
        for name, value in weights_of(algo).items():
            assert (value == ahead.weights[iteration][name]).all(), name


def test_rolling_back_continues_bit_for_bit(ahead):
    ahead.algo.restore_from_path(ahead.checkpoints[0])
    continues(ahead.algo, ahead, 1)
    ahead.algo.restore_from_path(ahead.checkpoints[1])
    continues(ahead.algo, ahead, 2)


def test_a_restored_run_continues_bit_for_bit_whatever_happens_between_iterations(ahead):
    algo = PrefixRFT.from_checkpoint(ahead.checkpoints[1])
    # Between iterations the runners hold the newest weights and sample nothing.
    (episode,) = algo.sample_rollouts([algo._plan(0).groups()[0].planned[0]])
    assert episode.custom_data[row_data.WEIGHTS_SEQ_NO] == 1
    algo.save_to_path(str(Path(algo.config.run_dir) / "again"))
    continues(algo, ahead, 2)
    algo.stop()


def test_an_iteration_that_was_given_up_has_the_same_rollouts_again(ahead):
    ahead.algo.restore_from_path(ahead.checkpoints[1])
    ahead.algo._sampler.groups(ahead.algo._plan(1))  # what a signal then ends
    continues(ahead.algo, ahead, first=2)


def during_the_update(algo: PrefixRFT, monkeypatch, action) -> None:
    """Do something once, when the next iteration is being sampled."""
    update = algo._update_learners

    def disturbed(*args):
        action()
        update(*args)

    monkeypatch.setattr(algo, "_update_learners", disturbed)


def kill(algo: PrefixRFT, *numbers: int) -> None:
    for number in numbers:
        ray.kill(algo.env_runner_group._worker_manager.actors()[number], no_restart=False)


def wait_for_runners(algo: PrefixRFT) -> None:
    while algo.env_runner_group.num_healthy_remote_env_runners() < 2:
        algo.restore_env_runners(algo.env_runner_group)


def test_rollouts_of_a_runner_that_dies_during_the_update_are_sampled_again(ahead, monkeypatch):
    algo = ahead.algo
    algo.restore_from_path(ahead.checkpoints[0])
    with monkeypatch.context() as patch:
        during_the_update(algo, patch, lambda: kill(algo, 1))
        assert_close(numbers_of(algo.train()), ahead.numbers[1])
    wait_for_runners(algo)
    # The other runner still had the older weights.
    assert_close(numbers_of(algo.train()), ahead.numbers[2])
    assert_same_rollouts(ahead.run_dir, 2, ahead)


def test_if_all_runners_die_during_the_update_the_rollouts_have_the_newest_weights(
    ahead, monkeypatch
):
    algo = ahead.algo
    algo.restore_from_path(ahead.checkpoints[0])
    with monkeypatch.context() as patch:
        during_the_update(algo, patch, lambda: kill(algo, 1, 2))
        assert_close(numbers_of(algo.train()), ahead.numbers[1])
    wait_for_runners(algo)
    numbers = numbers_of(algo.train())
    assert numbers["rollouts/weight_staleness_mean"] == 0
    assert numbers["learner/importance_weight_mean"] == pytest.approx(1.0, abs=1e-4)
    assert numbers_of(algo.train())["rollouts/weight_staleness_mean"] == 1


def test_weights_sent_during_sampling_wait_for_its_end_and_are_not_lost(ahead):
    algo = ahead.algo
    algo.restore_from_path(ahead.checkpoints[2])
    rollouts = [r for group in algo._plan(2).groups() for r in group.planned]
    expected = algo.sample_rollouts(rollouts)
    others = {name: value * np.float32(0.5) for name, value in weights_of(algo).items()}
    state = {COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: others}, WEIGHTS_SEQ_NO: 77}
    in_flight = algo.env_runners.start(rollouts)
    for number in (76, 77):
        algo.env_runner_group.foreach_env_runner(
            "set_state", kwargs={"state": state | {WEIGHTS_SEQ_NO: number}}, local_env_runner=False
        )
    sampled = algo.env_runners.finish(in_flight)
    assert responses(sampled) == responses(expected)
    assert {e.custom_data[row_data.WEIGHTS_SEQ_NO] for e in sampled} == {2}
    later = algo.sample_rollouts(rollouts)
    assert {e.custom_data[row_data.WEIGHTS_SEQ_NO] for e in later} == {77}
    assert responses(later) != responses(expected)


def responses(episodes) -> list[list[int]]:
    return [row_data.response_ids_of(episode).tolist() for episode in episodes]


def test_restoring_the_model_alone_forgets_rollouts_of_other_weights(ahead):
    algo = ahead.algo
    algo.restore_from_path(ahead.checkpoints[1])
    component = f"learner_group/learner/rl_module/{DEFAULT_MODULE_ID}"
    algo.restore_from_path(f"{ahead.checkpoints[3]}/{component}", component=component)
    assert algo._sampler.get_state() is None
    assert numbers_of(algo.train())["rollouts/weight_staleness_mean"] == 0


def test_rollouts_that_a_run_with_other_settings_did_not_plan_are_sampled_again(
    ahead, make_config, tmp_path, caplog
):
    other = make_config(method="rft", method_config={}, **AHEAD).env_runners(num_env_runners=1)
    other.reporting(run_dir=str(tmp_path))
    other.checkpointing(accept_changed=["method"])
    algo = PrefixRFT.from_checkpoint(ahead.checkpoints[1], config=other)
    with caplog.at_level(logging.WARNING, logger="prefix_rft_rllib"):
        numbers = numbers_of(algo.train())
    assert "iteration 2, since its settings differ" in caplog.text
    assert numbers["rollouts/weight_staleness_mean"] == 0
    assert numbers["rollouts/num_prefix_rollouts"] == 0
    algo.stop()


def test_a_run_may_go_on_without_lag(ahead, make_config, tmp_path):
    config = make_config().reporting(run_dir=str(tmp_path))
    config.checkpointing(accept_changed=["max_weight_staleness"])
    algo = PrefixRFT.from_checkpoint(ahead.checkpoints[1], config=config)
    numbers = numbers_of(algo.train())
    assert numbers["rollouts/weight_staleness_mean"] == 0
    assert "learner/importance_weight_mean" not in numbers
    algo.stop()


STAGES = {
    "sft": {},
    "prefix_rft_adaptive": {"target": 0.05},
    "relift": {"buffer_size": 2, "imitation_lr": 5e-3},
}


def test_stages_feedback_and_resampling_continue_bit_for_bit(make_config, tmp_path):
    stages = tuple(
        Stage(method=methods.by_name(name, **settings), num_iterations=2)
        for name, settings in STAGES.items()
    )
    settings = {
        "method": Method(name="stages", stages=stages),
        "method_config": {},
        "max_resampling_rounds": 1,
        **AHEAD,
    }
    config = make_config({"verifier": SELDOM_RIGHT}, **settings).env_runners(num_env_runners=1)
    run = train_undisturbed(config, tmp_path, 6, saved=(2, 5))
    lags = [run.numbers[i].get("rollouts/weight_staleness_mean") for i in range(1, 7)]
    assert lags[:2] == [None, None]  # SFT samples nothing
    # Replacements are sampled when the iteration begins; that of the first stage's end is stale.
    for iteration, lag in enumerate(lags[2:], 3):
        numbers = run.numbers[iteration]
        share = numbers["rollouts/num_groups_replaced"] / numbers["rollouts/num_groups"]
        updates = 1 + ("imitation_step/num_rows" in run.numbers[iteration - 1])
        assert lag == pytest.approx(updates * (1 - share))
    assert sum(run.numbers[i]["rollouts/num_groups_replaced"] for i in range(3, 7)) > 0
    windows = [run.numbers[i]["rollouts/prefix_window_low"] for i in (3, 4)]
    assert windows[0] != windows[1]
    assert any("imitation_step/num_rows" in run.numbers[i] for i in (5, 6))
    for middle in (2, 5):  # SFT's last iteration is done; before the last one
        algo = PrefixRFT.from_checkpoint(run.checkpoints[middle])
        assert numbers_of(algo.train()) == run.numbers[middle + 1]
        assert rollouts_of(tmp_path, middle + 1) == run.rollouts[middle + 1]
        algo.stop()
