"""Time and memory of sending the learner's weights to two env runners.

The time is that of `algo.sync_weights()`, as a multiple of copying the same bytes once
(`tensor.clone()`), measured in turns. Both env runners have built their engines before, so that
every sync loads. Memory is that of the processes before and after two syncs: `private` without,
`resident` with what is shared (libraries, the object store), and the peak of `resident`, all in
MiB.

    python benchmarks/weight_sync.py --out weight_sync.csv
"""

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from random_model import llama_config, report, save_random_model

from prefix_rft_rllib import PrefixRFT, PrefixRFTConfig

MIB = 2**20


def build(model_dir: Path, num_env_runners: int, run_dir: str) -> PrefixRFT:
    """An algorithm whose env runners have engines."""
    config = (
        PrefixRFTConfig()
        .environment("PrefixRFT/ToyArithmetic-v0")
        .env_runners(num_env_runners=num_env_runners)
        .training(
            model_path=str(model_dir),
            method="rft",
            num_problems_per_iteration=2,
            num_problems_per_minibatch=2,
        )
        .reporting(run_dir=run_dir, progress=False, preflight=False)
        .debugging(log_level="ERROR")
    )
    algo = config.build_algo()
    algo.env_runner_group.foreach_env_runner(
        lambda runner: runner.engine.weights_version, local_env_runner=False
    )
    return algo


def process_memory(_: Any = None) -> dict[str, float]:
    """MiB of this process, the driver or an env runner."""
    now = psutil.Process().memory_full_info()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    values = {"private": now.uss, "resident": now.rss, "peak_resident": peak}
    return {name: round(value / MIB, 1) for name, value in values.items()}


def memory(algo: PrefixRFT) -> dict[str, dict[str, float]]:
    """MiB of every process."""
    runners = algo.env_runner_group.foreach_env_runner(process_memory, local_env_runner=False)
    names = [f"env_runner_{number}" for number in range(1, len(runners) + 1)]
    return {
        "driver_with_learner": process_memory(),
        **dict(zip(names, runners, strict=True)),
    }


def seconds(function: Any) -> float:
    """Wall time of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden-size", type=int, default=1024)
    parser.add_argument("--num-layers", type=int, default=6)
    parser.add_argument("--num-env-runners", type=int, default=2)
    parser.add_argument("--num-repetitions", type=int, default=7)
    parser.add_argument("--out", type=Path, help="CSV file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(log_to_driver=False, logging_level="ERROR", num_cpus=args.num_env_runners + 1)
    with tempfile.TemporaryDirectory() as scratch:
        model_dir = Path(scratch) / "model"
        num_parameters = save_random_model(
            model_dir, llama_config(args.hidden_size, args.num_layers)
        )
        algo = build(model_dir, args.num_env_runners, f"{scratch}/run")
        before = memory(algo)
        for _ in range(2):
            algo.sync_weights()
        after = memory(algo)
        weights = torch.ones(num_parameters)
        copies, syncs = [], []
        for repetition in range(args.num_repetitions + 1):
            copy_s, sync_s = seconds(weights.clone), seconds(algo.sync_weights)
            if repetition > 0:  # the first one warms up
                copies.append(copy_s)
                syncs.append(sync_s)
        algo.stop()
    copy_s = statistics.median(copies)
    rows: list[dict[str, Any]] = [
        {"what": f"{what}_{number}", "value": round(value, 4), "unit": "s"}
        for what, values in (("copy", copies), ("sync", syncs))
        for number, value in enumerate(values, 1)
    ]
    rows += [
        {"what": f"{process}/{kind}_{when}", "value": value, "unit": "MiB"}
        for when, measured in (("before", before), ("after", after))
        for process, kinds in measured.items()
        for kind, value in kinds.items()
    ]
    rows += [
        {"what": "weights", "value": round(num_parameters * 4 / MIB, 1), "unit": "MiB"},
        {"what": "copy_median", "value": round(copy_s, 4), "unit": "s"},
        {"what": "sync_median", "value": round(statistics.median(syncs), 4), "unit": "s"},
        {
            "what": "sync_over_copy",
            "value": round(statistics.median(syncs) / copy_s, 2),
            "unit": "ratio",
        },
    ]
    report(args.out, rows)


if __name__ == "__main__":
    main()
