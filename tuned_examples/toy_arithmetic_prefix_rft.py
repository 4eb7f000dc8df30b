"""Prefix-RFT on generated word problems: the first thing to run.

What it shows: a small language model that solves about one word problem in twenty learns to solve
most of them from demonstrations' beginnings and its own verified attempts, through RLlib: two
remote env runners, the token-level environment, math-verify, checkpoints, metrics. The same
script runs the two baselines (`--method rft`, `--method sft`) on the same problems, model and
number of iterations.

How to run:
    python tuned_examples/toy_arithmetic_prefix_rft.py
    python tuned_examples/toy_arithmetic_prefix_rft.py --method rft --seed 1
    python tuned_examples/toy_arithmetic_prefix_rft.py --num-env-runners 0   # all in one process
    python tuned_examples/toy_arithmetic_prefix_rft.py --log   # prefixes, cuts, weights, each time

Settings that matter: `num_schedule_iterations` equals the number of iterations, so that the prefix
window has opened at the end; `lr` (1e-3 collapses, 1e-4 is slow); `entropy_keep_fraction`.

Results to expect are in README.md, with the command, hardware and seeds.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import ray

from prefix_rft_rllib import PrefixRFTConfig, evaluation, metrics, progress
from prefix_rft_rllib.envs import TOY_BASE_MODEL
from prefix_rft_rllib.rollout_log import iteration_log

NUM_ITERATIONS = 80
NUM_HELD_OUT = 64
MIN_ACCURACY = {"new": 0.75, "harder": 0.40}
"""Expected avg@8 of Prefix-RFT at the end, for `--as-test`."""


def toy_problems(num_problems: int, min_clauses: int, max_clauses: int, **settings: Any) -> dict:
    """Settings of the problem generator."""
    lengths = {"min_clauses": min_clauses, "max_clauses": max_clauses}
    return {"num_problems": num_problems, **lengths, **settings}


def build_config(
    method: str = "prefix_rft",
    *,
    seed: int = 0,
    num_iterations: int = NUM_ITERATIONS,
    num_held_out: int = NUM_HELD_OUT,
) -> PrefixRFTConfig:
    """The run's settings; all methods share everything but `method_config`."""
    method_configs: dict[str, dict[str, Any]] = {
        "prefix_rft": {"num_schedule_iterations": num_iterations},
        "rft": {},
        "sft": {},
    }
    held_out = {
        name: {
            "data": "toy_arithmetic",
            "data_config": toy_problems(num_held_out, *lengths, **split),
        }
        for name, lengths in {"new": (2, 6), "harder": (7, 8)}.items()
        for split in [{"split": "held_out", "seed": 0}]
    }
    return (
        PrefixRFTConfig()
        .environment(
            "PrefixRFT/ToyArithmetic-v0",
            env_config={
                # Trained on 2 to 6 clauses; the base model was pre-trained on up to 8.
                "data_config": toy_problems(2000, 2, 6, seed=seed),
                "held_out_data": held_out,
                "max_prompt_tokens": 64,
                "max_response_tokens": 96,
            },
        )
        .env_runners(num_env_runners=2)
        .training(
            model_path=str(TOY_BASE_MODEL),
            method=method,
            method_config=method_configs[method],
            group_size=8,
            num_problems_per_iteration=16,
            num_problems_per_minibatch=8,
            lr=3e-4,
        )
        .evaluation(evaluation_interval=10, held_out_num_samples=8)
        .debugging(seed=seed, log_level="ERROR")
    )


config = build_config()


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=["prefix_rft", "rft", "sft"], default="prefix_rft")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-iterations", type=int, default=NUM_ITERATIONS)
    parser.add_argument("--num-env-runners", type=int, default=2)
    parser.add_argument(
        "--num-held-out", type=int, default=NUM_HELD_OUT, help="problems of each held-out set"
    )
    parser.add_argument("--run-dir", type=Path, help="default: runs/toy_arithmetic_METHOD_seedSEED")
    parser.add_argument("--log", action="store_true", help="print each iteration's rollout log")
    parser.add_argument("--as-test", action="store_true", help="exit 1 below the expected accuracy")
    return parser.parse_args()


def main() -> int:
    """Train, evaluate before and after, save the model."""
    args = parse_arguments()
    run_dir = args.run_dir or Path("runs") / f"toy_arithmetic_{args.method}_seed{args.seed}"
    settings = build_config(
        args.method,
        seed=args.seed,
        num_iterations=args.num_iterations,
        num_held_out=args.num_held_out,
    )
    settings.env_runners(num_env_runners=args.num_env_runners)
    settings.reporting(run_dir=str(run_dir))

    ray.init(log_to_driver=False, logging_level="ERROR")
    algo = settings.build_algo()
    before, _, _ = evaluation.evaluate_held_out(algo)
    for iteration in range(1, args.num_iterations + 1):
        algo.train()
        if args.log:
            sys.stdout.write(iteration_log(run_dir, iteration, algo.method))
    after, _, _ = evaluation.evaluate_held_out(algo)
    algo.save_to_path(str((run_dir / "checkpoint").resolve()))
    model_dir = algo.save_pretrained(run_dir / "model")
    usage = progress.how_to_use(model_dir, algo.problem_set)
    algo.stop()

    summary = {"method": args.method, "seed": args.seed, "before": before, "after": after}
    (run_dir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    rows = [metrics.flatten({"evaluation": results}) for results in (before, after)]
    sys.stdout.write(
        f"\n{progress.final_table(*rows)}\n\n"
        f"Run:         {run_dir} (metrics.jsonl, rollouts/, checkpoint/)\n"
        f"TensorBoard: tensorboard --logdir {run_dir.parent}\n"
        f"Model:       {model_dir}, to use it:\n\n{usage}"
    )
    missed = [name for name, least in MIN_ACCURACY.items() if after[name]["avg_at_k"] < least]
    return 1 if args.as_test and missed else 0


if __name__ == "__main__":
    sys.exit(main())
