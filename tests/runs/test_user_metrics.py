"""What users log in callbacks stands beside this project's metrics, RLlib's own does not."""

import numpy as np
import pytest
from ray.rllib.callbacks.callbacks import RLlibCallback

from prefix_rft_rllib.runs.run_directory import read_metrics
from prefix_rft_rllib.runs.user_metrics import user_metrics
from tests.run_records import scalars_of
from tests.small_configs import HELD_OUT

pytest_plugins = ("tests.algorithm_fixtures",)
OWN = ("rollouts/", "learner/", "faults/", "time/", "evaluation/new/")


def test_rllibs_numbers_are_told_from_those_of_the_user():
    result = {
        "training_iteration": 3,
        "done": False,
        "date": "today",
        "config": {"lr": 1.0, "mine": 2.0},
        "timers": {"training_step": 1.0, "mine": 2.0},
        "env_runners": {"num_episodes": 4, "episode_len_mean": 5.0, "episode_len_mine": 6.0},
        "learners": {"__all_modules__": {"num_module_steps_trained": 3, "mine": 4}},
        "fault_tolerance": {"num_healthy_workers": 2},
        "my": {"key": np.float32(0.5), "deep": {50: 1, "nan": float("nan")}},
        "is_new": True,
        "series": np.arange(3),
        "one": np.ones((1, 1)),
        "note": "text",
    }
    assert user_metrics(result) == {
        "timers/mine": 2.0,
        "env_runners/episode_len_mine": 6.0,
        "learners/__all_modules__/mine": 4,
        "my/key": 0.5,
        "my/deep/50": 1,
        "is_new": 1,
        "one": 1.0,
    }


class Logs(RLlibCallback):
    """Logs wherever RLlib lets a user log."""

    def on_algorithm_init(self, *, metrics_logger, **kwargs):
        metrics_logger.log_value("at_start", 7.0, reduce="lifetime_sum")

    def on_train_result(self, *, algorithm, metrics_logger, result, **kwargs):
        result["in_result"] = {"iteration": result["training_iteration"]}
        algorithm.metrics.log_value(("my", "key"), 5.0 + algorithm.iteration, reduce="mean")

    def on_episode_end(self, *, episode, metrics_logger, **kwargs):
        metrics_logger.log_value(("mine", "num_odd"), len(episode) % 2, reduce="sum")

    def on_sample_end(self, *, samples, metrics_logger, **kwargs):
        metrics_logger.log_value("num_samples", len(samples), reduce="sum")

    def on_evaluate_end(self, *, evaluation_metrics, **kwargs):
        evaluation_metrics["extra"] = 9.0


@pytest.mark.integration
def test_what_callbacks_log_reaches_metrics_file_and_tensorboard(cluster, make_config, tmp_path):
    config = (
        make_config({"held_out_data": HELD_OUT})
        .callbacks(Logs)
        .evaluation(evaluation_interval=2, held_out_num_samples=1)
        .reporting(run_dir=str(tmp_path))
    )
    algo = config.build_algo()
    for _ in range(3):
        algo.train()
    algo.stop()
    first, second, third = (
        {key: value for key, value in row.items() if not key.startswith(OWN)}
        for row in read_metrics(tmp_path)
    )
    num_odd = {
        row.pop("env_runners/mine/num_odd")
        for row in (first, second, third)  # of 16 rollouts, not all of one length
    }
    assert len(num_odd) > 1
    always = {"at_start": 7.0, "env_runners/num_samples": 16}
    assert first == {"training_iteration": 1, **always, "in_result/iteration": 1}
    # What `on_train_result` logs stands in the next result; what it writes into one, in that.
    expected = {"my/key": 6.0, "evaluation/extra": 9.0, "in_result/iteration": 2}
    assert second == {"training_iteration": 2, **always, **expected}
    assert third == {"training_iteration": 3, **always, "my/key": 7.0, "in_result/iteration": 3}
    scalars = scalars_of(tmp_path)
    assert [scalars[iteration].get("my/key") for iteration in (1, 2, 3)] == [None, 6.0, 7.0]
