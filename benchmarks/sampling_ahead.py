"""Iteration time with `max_weight_staleness=1` over the longer of sampling and learning.

One remote env runner with one thread, and the learner in the driver with one thread. First a run
without lag says how long sampling and learning take alone, then one with lag how long an iteration
takes while both go on; each row of the CSV is one iteration. 1 would be perfect. Needs two idle
cores.

    python benchmarks/sampling_ahead.py --out sampling_ahead.csv
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
from random_model import llama_config, report, save_random_model

from prefix_rft_rllib import PrefixRFTConfig

NUM_WARM_UP = 2
"""Iterations left out: the first one has nothing sampled ahead."""


def scored(response: str, problem: Any) -> float:
    """A cheap reward that differs within every group."""
    return sum(response.encode()) % 997 / 997


def build_config(model_dir: Path, args: argparse.Namespace) -> PrefixRFTConfig:
    """Dr. GRPO on the generated word problems with a cheap reward."""
    return (
        PrefixRFTConfig()
        .environment(
            "PrefixRFT/ToyArithmetic-v0",
            env_config={
                "max_response_tokens": args.num_new_tokens,
                "verifier": "sampling_ahead:scored",
            },
        )
        .env_runners(num_env_runners=1)
        .training(
            model_path=str(model_dir),
            method="rft",
            group_size=8,
            num_problems_per_iteration=args.num_problems,
            num_problems_per_minibatch=args.num_problems // 2,
        )
        .debugging(log_level="ERROR")
    )


def measure(config: PrefixRFTConfig, num_iterations: int) -> list[dict[str, Any]]:
    """One run; a row for every iteration after the first ones."""
    rows = []
    with tempfile.TemporaryDirectory() as run_dir:
        config.reporting(run_dir=run_dir, progress=False, preflight=False)
        algo = config.build_algo()
        for iteration in range(1, num_iterations + NUM_WARM_UP + 1):
            started = time.perf_counter()
            time_of = algo.train()["time"]
            values = {
                "iteration_s": time.perf_counter() - started,
                "sampling_s": time_of["sampling"],
                "learning_s": time_of["learning"],
                "sync_s": time_of["sync"],
            }
            rows.append(
                {"max_weight_staleness": config.max_weight_staleness, "iteration": iteration}
                | {name: round(value, 3) for name, value in values.items()}
            )
        algo.stop()
    return rows[NUM_WARM_UP:]


def ratio(alone: list[dict[str, Any]], together: list[dict[str, Any]]) -> float:
    """Iteration time over the longer of the two, from medians."""
    longer = max(
        statistics.median(float(row[name]) for row in alone)
        for name in ("sampling_s", "learning_s")
    )
    return statistics.median(float(row["iteration_s"]) for row in together) / longer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--num-layers", type=int, default=10)
    parser.add_argument("--num-problems", type=int, default=8, help="of an iteration")
    parser.add_argument("--num-new-tokens", type=int, default=96, help="most of a response")
    parser.add_argument("--num-iterations", type=int, default=5, help="of each run, measured")
    parser.add_argument("--out", type=Path, help="CSV file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(log_to_driver=False, logging_level="ERROR", num_cpus=2)
    with tempfile.TemporaryDirectory() as scratch:
        model_dir = Path(scratch) / "model"
        save_random_model(model_dir, llama_config(args.hidden_size, args.num_layers))
        runs = {
            staleness: measure(
                build_config(model_dir, args).training(max_weight_staleness=staleness),
                args.num_iterations,
            )
            for staleness in (0, 1)
        }
    report(args.out, runs[0] + runs[1])
    print(f"iteration / max(sampling, learning) = {ratio(runs[0], runs[1]):.2f}")


if __name__ == "__main__":
    main()
