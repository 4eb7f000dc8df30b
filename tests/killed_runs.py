"""Runs in processes that are killed: python -m tests.killed_runs CASE MODEL RUN_DIR LAST SLOWNESS.

The process begins a run, or goes on with it by the command, up to iteration LAST. With SLOWNESS
every flush of a checkpoint's file takes that many seconds longer, so that kills meet it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from prefix_rft_rllib import PrefixRFTConfig, resume, start_ray
from prefix_rft_rllib.basics import whole_directories
from prefix_rft_rllib.runs.checkpoints import checkpoints_of
from prefix_rft_rllib.runs.run_directory import read_metrics, read_minibatches
from tests.method_runs import method_config
from tests.run_records import scalars_of
from tests.small_configs import small_config

ROOT = Path(__file__).parents[1]
CASES: dict[str, dict[str, Any]] = {
    "prefix_rft": {},
    "prefix_rft_adaptive": {},
    "relift": {},
    "sft_rft": {},
    "ahead": {"method": "prefix_rft", "max_weight_staleness": 1},
    "two_learners": {"method": "prefix_rft"},
}
"""Names of runs, and what they set beside their method."""


def count(*, result: dict[str, Any], **kwargs: Any) -> None:
    """A callback: counters of the whole run stand in its metrics too."""
    lifetime = result.get("env_runners", {}).get("num_env_steps_sampled_lifetime", 0)
    result["counters"] = {"num_tokens": lifetime}


def config_of(case: str, model: str) -> PrefixRFTConfig:
    """The settings of a case."""
    settings = {"method": case, **CASES[case]}
    config = method_config(partial(small_config, model), settings.pop("method"), **settings)
    config.env_runners(num_env_runners=1 if case == "ahead" else 0)
    config.learners(num_learners=2 if case == "two_learners" else 0)
    config.callbacks(on_train_result=count)
    return config.reporting(num_logged_groups=4).checkpointing(every=1, keep_last=2)


def process(case: str, model: str, run_dir: Path, last: int, slowness: float = 0.0) -> Any:
    """Start a process that trains up to an iteration; its output ends up in `run_dir`.txt."""
    arguments = [case, model, str(run_dir), str(last), str(slowness)]
    command = [sys.executable, "-u", "-m", "tests.killed_runs", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(f"{run_dir}.txt", "ab") as output:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )


def finish(started: Any, run_dir: Path) -> None:
    """Wait for the end of a process, which must be a good one."""
    assert started.wait(timeout=300) == 0, Path(f"{run_dir}.txt").read_text()[-3000:]


def kill_when(started: Any, is_time: Callable[[], bool]) -> None:
    """Kill a process, and nothing else, once it is time; it must not end before."""
    while not is_time():
        assert started.poll() is None, "ended before it was to be killed"
        time.sleep(0.001)
    started.send_signal(signal.SIGKILL)
    started.wait()


def record_of(run_dir: Path) -> dict[str, Any]:
    """All that a run has written but for times: equal runs have equal records."""
    rows = [
        {key: value for key, value in row.items() if not key.startswith("time/")}
        for row in read_metrics(run_dir)
    ]
    points = {
        step: {key: value for key, value in row.items() if not key.startswith("time/")}
        for step, row in scalars_of(run_dir).items()
    }
    rollouts = {path.name: path.read_bytes() for path in (run_dir / "rollouts").iterdir()}
    return {
        "iterations": [row["training_iteration"] for row in rows],
        "metrics": rows,
        "minibatches": read_minibatches(run_dir),
        "rollouts": rollouts,
        "events": points,
    }


def main() -> int:
    """Train as the command line says."""
    case, model, run_dir, last, slowness = sys.argv[1:]
    flush = whole_directories._flush

    def slow_flush(path: Path) -> None:
        time.sleep(float(slowness))
        flush(path)

    whole_directories._flush = slow_flush
    start_ray(
        num_cpus=4,
        log_to_driver=False,
        include_dashboard=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
    )
    if checkpoints_of(run_dir):
        return resume.main([run_dir, "--stop-iters", last])
    algo = config_of(case, model).reporting(run_dir=run_dir).build_algo()
    while algo.iteration < int(last):
        algo.train()
    algo.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
