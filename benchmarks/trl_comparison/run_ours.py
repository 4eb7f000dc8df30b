"""Seconds per iteration of this project; the counterpart of `run_trl.py`.

python benchmarks/trl_comparison/run_ours.py WORKLOAD --out seconds.csv
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
from workload import BREAKDOWN, Workload, write_rows

from prefix_rft_rllib import PrefixRFTConfig


def settings(workload: Workload, args: argparse.Namespace, run_dir: str) -> PrefixRFTConfig:
    """The same method and workload; logs and records as in any run."""
    is_local = args.engine == "transformers"
    return (
        PrefixRFTConfig()
        .environment(
            "PrefixRFT/Math-v0",
            env_config={
                "data": str(workload.problems_file),
                "chat_template": False,
                "max_prompt_tokens": 64,
                "max_response_tokens": workload.num_new_tokens,
                "verifier": "workload:verify",
            },
        )
        .env_runners(
            # vLLM needs an actor, which waits while the learner works and the other way round.
            num_env_runners=0 if is_local else 1,
            num_cpus_per_env_runner=args.threads,
            engine=args.engine,
        )
        .training(
            model_path=str(workload.model_dir),
            method="rft",
            group_size=workload.group_size,
            num_problems_per_iteration=workload.num_prompts,
            num_problems_per_minibatch=workload.num_prompts // workload.num_steps,
            lr=1e-6,
        )
        .reporting(run_dir=run_dir, progress=False, preflight=False)
        .debugging(log_level="ERROR")
    )


def seconds_of(result: dict[str, Any], iteration_s: float) -> dict[str, float | int]:
    """A row of the CSV. The old-policy pass is part of the update, before its first step."""
    time_of, rollouts = result["time"], result["rollouts"]
    generation_s = result["env_runners"]["generation"]
    known = {"generation_s": generation_s, "update_s": time_of["learning"]}
    row: dict[str, Any] = {"iteration_s": round(iteration_s, 4), **dict.fromkeys(BREAKDOWN, "")}
    row |= {name: round(value, 4) for name, value in known.items()}
    row["other_s"] = round(iteration_s - sum(known.values()), 4)
    return row | {"num_tokens": int(rollouts["num_sampled_tokens"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", type=Path)
    parser.add_argument("--num-iterations", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", choices=["transformers", "vllm"], default="transformers")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    ray.init(log_to_driver=False, logging_level="ERROR")
    rows = []
    with tempfile.TemporaryDirectory() as run_dir:
        algo = settings(Workload.load(args.workload), args, run_dir).build_algo()
        for _ in range(args.num_iterations):
            started = time.perf_counter()
            result = algo.train()
            rows.append(seconds_of(result, time.perf_counter() - started))
        algo.stop()
    write_rows(args.out, rows[1:])  # as TRL's, without the first


if __name__ == "__main__":
    main()
