"""The numbers that a user's callbacks add to a result, told apart from RLlib's own."""

import fnmatch
import re
from collections.abc import Mapping
from typing import Any

from ray.rllib.utils.metrics import LEARNER_RESULTS

from prefix_rft_rllib import metrics

RUNNER_KEYS = (
    "num_env_steps_sampled",
    "num_env_steps_sampled_throughput",
    "num_env_steps_sampled_lifetime",
    "num_env_steps_sampled_lifetime_throughput/*",
    "num_episodes",
    "num_episodes_lifetime",
    "episode_return_mean",
    "episode_len_mean",
    metrics.GENERATION_TIME,
    metrics.VERIFICATION_TIME,
)
FAULT_KEYS = (
    "num_healthy_workers",
    "num_remote_worker_restarts",
    "num_env_runners_dropped_lifetime",
    "actor_manager_num_outstanding_async_reqs",
)
TIMER_KEYS = (
    "training_iteration",
    "training_step",
    "prefix_rft_training_step",
    "evaluation_iteration",
    "env_runner_sampling_timer",
    "learner_update_timer",
    "synch_weights",
    "synch_env_connectors",
    "synch_eval_env_connectors",
    "restore_env_runners",
    "restore_eval_env_runners",
)
MODULE_KEYS = (
    "num_env_steps_trained*",
    "num_module_steps_trained*",
    "num_trainable_parameters",
    "num_non_trainable_parameters",
    "learner_connector/*",
    "learner_connector_sum_episodes_length_*",
    "gradients_*_global_norm",
    "total_loss",
    "weights_seq_no",
    "module_train_batch_size_mean",
    "diff_num_grad_updates_vs_sampler_policy",
)
TOP_KEYS = (
    "config/*",
    "perf/*",
    "fault_tolerance/*",
    "env_runner_group/*",
    "num_training_step_calls_per_iteration",
    "num_env_steps_sampled_lifetime*",
    "training_iteration",
    "timestamp",
    "time_this_iter_s",
    "time_total_s",
    "time_since_restore",
    "iterations_since_restore",
    "timesteps_total",
    "episodes_total",
    "pid",
    "done",
)
RLLIB_KEYS = (
    *TOP_KEYS,
    *(f"timers/{key}" for key in TIMER_KEYS),
    *(f"env_runners/{key}" for key in RUNNER_KEYS),
    *(f"evaluation/env_runners/{key}" for key in RUNNER_KEYS),
    *(f"evaluation/{key}" for key in FAULT_KEYS),
    *(f"{LEARNER_RESULTS}/*/{key}" for key in MODULE_KEYS),
    *(f"{LEARNER_RESULTS}/*/{key}" for key in metrics.LEARNER_METRICS),
)
"""Flat keys of RLlib's results that nobody logged in a callback; `*` stands for any text."""

_IS_RLLIBS = re.compile("|".join(map(fnmatch.translate, RLLIB_KEYS)))


def user_metrics(result: Mapping[str, Any]) -> dict[str, float | int]:
    """What callbacks and classes of the user have logged or written into a result.

    Args:
        result: RLlib's result of an iteration, after `on_train_result`.

    Returns:
        Finite numbers by flat key, such as `my/key` or `env_runners/my_key`; this project's own
        metrics of rollouts, times and held-out sets may be among them.
    """
    flat = metrics.flatten({name: value for name, value in result.items() if name != "config"})
    return {key: value for key, value in flat.items() if not _IS_RLLIBS.match(key)}
