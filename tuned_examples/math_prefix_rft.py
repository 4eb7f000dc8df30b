"""Prefix-RFT on a JSONL file of math problems with demonstrations.

What it shows: the settings for real problems (GSM8K, MATH, AIME, ...): a file with field mapping,
demonstrations in natural language, the math verifier, remote env runners, and on request a Tune
search. The defaults are meant for one GPU and a model of 1 to 2 billion parameters (not run by us);
with `--small` the shipped 0.5 M-parameter model runs (it is not taught), so that every part can be
seen working on two CPU cores.

How to run:
    python tuned_examples/math_prefix_rft.py --data train.jsonl --small --num-iterations 5
    python tuned_examples/math_prefix_rft.py --data train.jsonl --model Qwen2.5-Math-1.5B/
    python tuned_examples/math_prefix_rft.py --data train.jsonl --small --tune \
        --num-env-runners 1 --num-iterations 5                                  # 2x2 grid
    On a cluster: `ray up`, then the same command with more `--num-env-runners`.
A run ends with a checkpoint and a model in `runs/math_prefix_rft_seed<seed>/` and shows how to use
the model. To debug, use `--num-env-runners 0`: everything runs in one process, and errors are
raised there.

Settings that matter: `--max-prompt-tokens` and `--max-response-tokens` (memory and time; their sum
must not exceed the model's positions; the defaults, 1024 and 3072, fit a model of 4096, the paper's
are 1024 and 8192), `num_schedule_iterations` (equal to the number of iterations), `lr` (1e-6 in the
paper).

Results to expect with `--small`: nearly all rewards are 0 (the model was never taught these
problems), so nearly all advantages and weights are 0; what is to be seen is the log: prefix
lengths, cuts, verdicts, and per minibatch the number of kept prefix tokens.
"""

import argparse
import shlex
import sys
from pathlib import Path

import ray
from ray import tune

from prefix_rft_rllib import PrefixRFT, PrefixRFTConfig, progress
from prefix_rft_rllib.envs import TOY_BASE_MODEL
from prefix_rft_rllib.ray_start import start_ray
from prefix_rft_rllib.rollout_log import iteration_log

config = (
    PrefixRFTConfig()
    .environment(
        "PrefixRFT/Math-v0",
        env_config={"max_prompt_tokens": 1024, "max_response_tokens": 3072},
    )
    .env_runners(num_env_runners=2, engine="transformers")
    .training(
        method="prefix_rft",
        group_size=8,
        num_problems_per_iteration=128,
        num_problems_per_minibatch=64,
        lr=1e-6,
        clip_param=0.2,
    )
)


def apply_small() -> None:
    """Settings that run the shipped model on two CPU cores."""
    config.environment(
        env_config={
            "max_prompt_tokens": 1024,
            "max_response_tokens": 768,
            "filters": ["prompt_too_long"],
        }
    )
    config.training(
        model_path=str(TOY_BASE_MODEL),
        group_size=4,
        num_problems_per_iteration=4,
        num_problems_per_minibatch=2,
    )


def run_tune(num_iterations: int) -> None:
    """A 2x2 grid over the learning rate and the share of prefix tokens that is kept."""
    needed, available = 1 + config.num_env_runners, ray.cluster_resources()["CPU"]
    if needed > available:
        # Tune would wait for ever for a trial's resources.
        raise SystemExit(
            f"A trial needs {needed} CPUs (one for itself, one per env runner), Ray has "
            f"{available:g}: lower --num-env-runners to {max(0, int(available) - 1)}."
        )
    config.training(
        lr=tune.grid_search([1e-6, 1e-5]),
        method_config={
            **config.method_config,
            "entropy_keep_fraction": tune.grid_search([0.2, 0.5]),
        },
    )
    tuner = tune.Tuner(
        PrefixRFT,
        param_space=config,
        run_config=tune.RunConfig(
            name="math_prefix_rft",
            storage_path=str(Path("runs").resolve()),
            stop={"training_iteration": num_iterations},
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
        ),
    )
    results = tuner.fit()
    sys.stdout.write(f"TensorBoard: tensorboard --logdir {shlex.quote(results.experiment_path)}\n")


def run_once(num_iterations: int, run_dir: Path) -> None:
    """One run: the log of each iteration, then checkpoint and model in the run directory."""
    config.reporting(run_dir=str(run_dir))
    algo = config.build_algo()
    for _ in range(num_iterations):
        result = algo.train()
        sys.stdout.write(iteration_log(run_dir, result["training_iteration"]))
    checkpoint = run_dir / "checkpoint"
    algo.save_to_path(str(checkpoint.resolve()))
    model_dir = algo.save_pretrained(run_dir / "model")
    usage = progress.how_to_use(model_dir, algo.problem_set)
    algo.stop()
    sys.stdout.write(
        f"\nRun:         {run_dir} (metrics.jsonl, rollouts/)\n"
        f"Checkpoint:  {checkpoint} (PrefixRFT.from_checkpoint)\n"
        f"Model:       {model_dir}, to use it:\n\n{usage}"
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="JSONL, JSONL.gz or Parquet file")
    parser.add_argument("--model", help="Hugging Face model directory")
    parser.add_argument("--small", action="store_true", help="the shipped model, small sizes")
    parser.add_argument("--max-prompt-tokens", type=int, help="default 1024")
    parser.add_argument("--max-response-tokens", type=int, help="default 3072, small: 768")
    parser.add_argument("--num-iterations", type=int, default=500)
    parser.add_argument("--num-env-runners", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tune", action="store_true", help="search instead of one run")
    args = parser.parse_args()
    if not args.small and not args.model:
        parser.error("give --model DIRECTORY, or --small for the shipped model")
    return args


def main() -> None:
    """Train once, or search."""
    args = parse_arguments()
    if args.small:
        apply_small()
    if args.model:
        # Tune runs trials in directories of their own: relative paths would not be found there.
        config.training(model_path=str(Path(args.model).resolve()))
    limits = {
        name: value
        for name in ("max_prompt_tokens", "max_response_tokens")
        if (value := getattr(args, name)) is not None
    }
    data = str(Path(args.data).resolve())
    config.environment(env_config={**config.env_config, **limits, "data": data})
    config.env_runners(num_env_runners=args.num_env_runners)
    config.training(method_config={"num_schedule_iterations": args.num_iterations})
    config.debugging(seed=args.seed, log_level="ERROR")
    start_ray(log_to_driver=False, logging_level="ERROR")
    if args.tune:
        run_tune(args.num_iterations)
    else:
        run_once(args.num_iterations, Path("runs") / f"math_prefix_rft_seed{args.seed}")


if __name__ == "__main__":
    main()
