"""A program that trains, for tests that send it signals: `training.py MODEL RUN_DIRECTORY`."""

import sys

import ray

from tests.small_configs import small_config


def main() -> None:
    """Say "begun" before each iteration, and the process ids of the env runner and the learner."""
    model, run_dir = sys.argv[1:]
    ray.init(num_cpus=3, include_dashboard=False, object_store_memory=200 * 2**20)
    config = small_config(model).env_runners(num_env_runners=1).learners(num_learners=1)
    algo = config.reporting(run_dir=run_dir).build_algo()
    while True:
        print("begun", flush=True)
        algo.train()


if __name__ == "__main__":
    main()
