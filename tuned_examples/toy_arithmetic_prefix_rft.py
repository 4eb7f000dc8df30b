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
import inspect
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefix_rft_rllib import PrefixRFTConfig, methods, metrics, start_ray
from prefix_rft_rllib.envs import TOY_BASE_MODEL
from prefix_rft_rllib.evaluation import evaluate_held_out
from prefix_rft_rllib.reports.rollout_log import iteration_log
from prefix_rft_rllib.runs import progress

NUM_ITERATIONS = 80
NUM_HELD_OUT = 64
NUM_PROBLEMS_PER_ITERATION = 16
LR = 3e-4
MIN_ACCURACY = {"new": 0.75, "harder": 0.40}
"""Expected avg@8 of Prefix-RFT at the end, for `--as-test`."""


def toy_problems(num_problems: int, min_clauses: int, max_clauses: int, **settings: Any) -> dict:
    """Settings of the problem generator."""
    lengths = {"min_clauses": min_clauses, "max_clauses": max_clauses}
    return {"num_problems": num_problems, **lengths, **settings}


def method_config_for(method: str, num_iterations: int) -> dict[str, Any]:
    """Settings of a method that have to fit the run's length or this task's size.

    Args:
        method: A name in `methods.METHODS`.
        num_iterations: Length of the run.

    Returns:
        Keyword arguments of the method's function; {} if its defaults fit any run.

    Raises:
        ValueError: For an unknown method.
    """
    methods.by_name(method)  # names the known methods if this is none
    if method == "uft":
        # Hints in the first 60% of the run, then none, as in its paper (300 of 500 iterations).
        return {"num_schedule_iterations": max(1, round(0.6 * num_iterations))}
    if method == "sft_rft":
        # Half of the run each, at one rate: the default for SFT, 5e-5, is for large models.
        return {"num_sft_iterations": max(1, num_iterations // 2), "sft_lr": LR}
    if method == "relift":
        # One step on as many failed problems as an iteration has problems, as in the defaults (128
        # and 128), at the task's rate: the default, 1e-6, is for large models.
        return {"buffer_size": NUM_PROBLEMS_PER_ITERATION, "imitation_lr": LR}
    if method == "chord":
        # A third of the run up, two thirds down, as 200 and 400 of 600 iterations in its example.
        num_warmup = num_iterations // 3
        num_decay = max(1, num_iterations - num_warmup)
        return {"num_warmup_iterations": num_warmup, "num_decay_iterations": num_decay}
    if "num_schedule_iterations" in inspect.signature(methods.METHODS[method]).parameters:
        # A prefix window that opens over the whole run.
        return {"num_schedule_iterations": num_iterations}
    return {}


def training_config(method: str, *, seed: int, num_iterations: int) -> PrefixRFTConfig:
    """Everything but environment and model; all methods share all but `method_config`."""
    return (
        PrefixRFTConfig()
        .env_runners(num_env_runners=2)
        .training(
            method=method,
            method_config=method_config_for(method, num_iterations),
            group_size=8,
            num_problems_per_iteration=NUM_PROBLEMS_PER_ITERATION,
            num_problems_per_minibatch=8,
            lr=LR,
        )
        .evaluation(evaluation_interval=10, held_out_num_samples=8)
        .debugging(seed=seed, log_level="ERROR")
    )


def build_config(
    method: str = "prefix_rft",
    *,
    seed: int = 0,
    num_iterations: int = NUM_ITERATIONS,
    num_held_out: int = NUM_HELD_OUT,
) -> PrefixRFTConfig:
    """The run's settings."""
    held_out = {
        name: {
            "data": "toy_arithmetic",
            "data_config": toy_problems(num_held_out, *lengths, **split),
        }
        for name, lengths in {"new": (2, 6), "harder": (7, 8)}.items()
        for split in [{"split": "held_out", "seed": 0}]
    }
    return (
        training_config(method, seed=seed, num_iterations=num_iterations)
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
        .training(model_path=str(TOY_BASE_MODEL))
    )


config = build_config()


def argument_parser(description: str, num_iterations: int) -> argparse.ArgumentParser:
    """The options of a run on generated problems."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--method", choices=["prefix_rft", "rft", "sft"], default="prefix_rft")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-iterations", type=int, default=num_iterations)
    parser.add_argument("--num-env-runners", type=int, default=2)
    parser.add_argument(
        "--num-held-out", type=int, default=NUM_HELD_OUT, help="problems of each held-out set"
    )
    parser.add_argument("--run-dir", type=Path, help="default: runs/TASK_METHOD_seedSEED")
    parser.add_argument("--log", action="store_true", help="print each iteration's rollout log")
    return parser


def run(
    build: Callable[..., PrefixRFTConfig], task: str, args: argparse.Namespace, **options: Any
) -> dict[str, Any]:
    """Train, evaluate before and after, save the model, print where everything is.

    Args:
        build: Builds the settings: the `build_config` of an example.
        task: Begins the name of the run directory.
        args: Options of `argument_parser`.
        **options: Further arguments of `build`.

    Returns:
        Results on each held-out set after training.
    """
    settings = build(
        args.method,
        seed=args.seed,
        num_iterations=args.num_iterations,
        num_held_out=args.num_held_out,
        **options,
    )
    run_dir = args.run_dir or Path("runs") / f"{task}_{args.method}_seed{args.seed}"
    settings.env_runners(num_env_runners=args.num_env_runners)
    settings.reporting(run_dir=str(run_dir))

    start_ray(log_to_driver=False, logging_level="ERROR")
    algo = settings.build_algo()
    before, _, _ = evaluate_held_out(algo)
    for iteration in range(1, args.num_iterations + 1):
        algo.train()
        if args.log:
            sys.stdout.write(iteration_log(run_dir, iteration))
    after, _, _ = evaluate_held_out(algo)
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
        f"TensorBoard: tensorboard --logdir {shlex.quote(str(run_dir.parent))}\n"
        f"Model:       {model_dir}, to use it:\n\n{usage}"
    )
    return after


def main() -> int:
    """Run with the settings of the command line."""
    parser = argument_parser(__doc__.splitlines()[0], NUM_ITERATIONS)
    parser.add_argument("--as-test", action="store_true", help="exit 1 below the expected accuracy")
    args = parser.parse_args()
    after = run(build_config, "toy_arithmetic", args)
    missed = [name for name, least in MIN_ACCURACY.items() if after[name]["avg_at_k"] < least]
    return 1 if args.as_test and missed else 0


if __name__ == "__main__":
    sys.exit(main())
