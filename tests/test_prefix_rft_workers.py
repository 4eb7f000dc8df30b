"""Remote env runners and learners give the same run, whatever happens to them."""

from pathlib import Path

import numpy as np
import pytest
import ray
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
)

from prefix_rft_rllib import PrefixRFT
from prefix_rft_rllib.reports.rollout_log import iteration_log
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.runs.run_directory import read_rollouts
from tests.algorithm_runs import (
    assert_close,
    assert_evaluates,
    assert_same_rollouts,
    numbers_of,
    weights_of,
)
from tests.small_configs import BROKEN, HOSTILE_TEXT, TALKATIVE

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]


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

    def on_sample_end(self, *, env_runner, samples, **kwargs):
        for episode in samples:
            episode.custom_data["env_runner"] = env_runner.worker_index
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


def test_every_group_is_sampled_by_one_env_runner(remote_algo):
    algo, start, _ = remote_algo
    algo.restore_from_path(start)
    rollouts = [rollout for group in algo._plan(0).groups() for rollout in group.planned]
    samplers = {}
    for episode in algo.sample_rollouts(rollouts):
        group_id = episode.custom_data[row_data.ROLLOUT].group_id
        samplers.setdefault(group_id, []).append(episode.custom_data["env_runner"])
    assert samplers == {0: [1] * 4, 1: [2] * 4, 2: [1] * 4, 3: [2] * 4}


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


def test_what_a_verifier_says_reaches_the_log_from_remote_env_runners(make_config, tmp_path):
    config = make_config({"verifier": TALKATIVE}).env_runners(num_env_runners=1)
    algo = config.reporting(run_dir=str(tmp_path), num_logged_groups=4).build_algo()
    numbers = numbers_of(algo.train())
    algo.stop()
    assert numbers["rollouts/num_without_isolation"] == numbers["rollouts/verdicts/WRONG"] == 16
    records = read_rollouts(tmp_path / "rollouts" / "iteration_000001.jsonl.gz")
    got = HOSTILE_TEXT.replace("\ud800", "\\ud800")
    details = {"test": "assert f(1) == 2", "got": got, "isolation": "none"}
    assert [record.verdict_details for record in records] == [details] * 16
    log = iteration_log(tmp_path, 1)
    assert "; code of 16 rollouts ran without isolation\n" in log
    assert r"WRONG (test assert f(1) == 2; got \x1b[2J\x9b31m\x07\x00\r\n\u2028" in log
    assert all(line.isascii() and line.isprintable() for line in log.removesuffix("\n").split("\n"))


def test_remote_env_runners_attempt_problems_for_an_evaluation(remote_algo):
    algo, _, _ = remote_algo
    assert_evaluates(algo)
