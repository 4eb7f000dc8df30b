"""Prefix-RFT on a JSONL file of math problems with demonstrations.

This example shows:
    - the settings for real problems (GSM8K, MATH, AIME, ...): a file with field mapping,
    demonstrations in natural language, the math verifier, remote env runners.
    - a search with Ray Tune over two of them (`--tune`).
    - how learners and engines share GPUs (`--gpus N`; not run by us): each GPU has one learner and
    one vLLM engine, which sleeps during updates; bfloat16 and activation checkpointing save memory.
    Without `--gpus` everything runs on CPUs.

How to run this script
----------------------
`python [script file name].py --data=train.jsonl --small --stop-iters=5`

The sizes are meant for a model of 1 to 2 billion parameters. With `--small` the shipped 0.5
M-parameter model runs (it is not taught), so that every part can be seen working on two CPU cores.
With GPUs and a model:
`python [script file name].py --data=train.jsonl --model=Qwen2.5-Math-1.5B/ --gpus=1`
`--engine=transformers` works without vLLM, slower. On a cluster: `ray up`, then the same command
with as many `--gpus` as there are.

A 2x2 grid, for logging to your WandB account also with
`--wandb-key=[your WandB API key] --wandb-project=[some project name]`:
`python [script file name].py --data=train.jsonl --small --tune --num-env-runners=1 --stop-iters=5`

For debugging, use `--num-env-runners=0`: everything runs in one process, and errors are raised
there.

Settings that matter: `--max-prompt-tokens` and `--max-response-tokens` (memory and time; their sum
must not exceed the model's positions; the defaults, 1024 and 3072, fit a model of 4096, the paper's
are 1024 and 8192), `num_schedule_iterations` (equal to the number of iterations), `lr` (1e-6 in the
paper).

What to expect
--------------
A log of each iteration: prefix lengths, cuts, verdicts, and per minibatch the number of kept prefix
tokens. A run ends with a checkpoint and a model in `runs/math_prefix_rft_seed<seed>/` and shows how
to use the model. Tune's results are in `~/ray_results`, as those of RLlib's own examples.

Results to expect
-----------------
With `--small` nearly all rewards are 0 (the model was never taught these problems), so nearly all
advantages and weights are 0. With a real model: not run by us.
"""

import argparse
import sys
from pathlib import Path

from example_script import apply_options, example_parser, parse_options, refuse, run_example
from ray import tune

from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.envs import TOY_BASE_MODEL

NUM_ITERATIONS = 500

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


ENGINES_ON_GPUS = {
    "vllm": {"enable_sleep_mode": True, "gpu_memory_utilization": 0.5},
    "transformers": {"dtype": "bfloat16"},
}
"""Settings of an engine that shares a GPU with a learner."""


def apply_gpus(num_gpus: int, num_env_runners: int, engine: str) -> None:
    """One learner and one engine on each GPU; both in this process without env runners."""
    config.training(compute_dtype="bfloat16")
    config.env_runners(engine=engine, engine_config=ENGINES_ON_GPUS[engine])
    if num_env_runners == 0:
        config.learners(num_gpus_per_learner=1, activation_checkpointing=True)
        return
    # Env runners start first and take more than half, so that no two of a kind share a GPU.
    config.env_runners(num_gpus_per_env_runner=0.51)
    config.learners(num_learners=num_gpus, num_gpus_per_learner=0.49, activation_checkpointing=True)


def apply_search() -> None:
    """A 2x2 grid over the learning rate and the share of prefix tokens that is kept."""
    config.training(
        lr=tune.grid_search([1e-6, 1e-5]),
        method_config={
            **config.method_config,
            "entropy_keep_fraction": tune.grid_search([0.2, 0.5]),
        },
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = example_parser(__doc__, NUM_ITERATIONS)
    interval = "has no effect: the file has no held-out problems"
    refuse(parser, {"--evaluation-interval": interval})
    parser.add_argument("--data", required=True, help="JSONL, JSONL.gz or Parquet file")
    parser.add_argument("--model", help="model directory, or 'org/name@revision' of the hub")
    parser.add_argument("--small", action="store_true", help="the shipped model, small sizes")
    parser.add_argument("--max-prompt-tokens", type=int, help="default 1024")
    parser.add_argument("--max-response-tokens", type=int, help="default 3072, small: 768")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs; default 0: all on CPUs")
    parser.add_argument("--engine", choices=ENGINES_ON_GPUS, help="default vllm with --gpus")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(log=True, checkpoint_at_end=True)
    args = parse_options(parser)
    if not args.small and not args.model:
        parser.error("give --model DIRECTORY, or --small for the shipped model")
    if args.gpus and (args.num_learners, args.num_gpus_per_learner) != (None, None):
        parser.error(
            "--gpus N has one learner per GPU: leave --num-learners and --num-gpus-per-learner out"
        )
    args.engine = args.engine or ("vllm" if args.gpus else "transformers")
    if args.num_env_runners is None:
        args.num_env_runners = args.gpus or 2
    if args.gpus and args.num_env_runners not in (0, args.gpus):
        parser.error("--gpus N has one env runner per GPU: leave --num-env-runners out, or give 0")
    if args.gpus > 1 and args.num_env_runners == 0:
        parser.error("--num-env-runners 0 runs in one process, which uses one GPU: --gpus 1")
    return args


def main() -> int:
    """Train once, or search."""
    args = parse_arguments()
    if args.small:
        apply_small()
    if args.model:
        # Tune runs trials in directories of their own: relative paths would not be found there.
        directory = Path(args.model)
        is_here = directory.is_dir()
        config.training(model_path=str(directory.resolve()) if is_here else args.model)
    limits = {
        name: value
        for name in ("max_prompt_tokens", "max_response_tokens")
        if (value := getattr(args, name)) is not None
    }
    data = str(Path(args.data).resolve())
    config.environment(env_config={**config.env_config, **limits, "data": data})
    config.env_runners(num_env_runners=args.num_env_runners, engine=args.engine)
    if args.gpus:
        apply_gpus(args.gpus, args.num_env_runners, args.engine)
    config.training(method_config={"num_schedule_iterations": args.stop_iters})
    config.debugging(seed=args.seed, log_level="ERROR")
    if args.tune:
        apply_search()
    run_dir = Path("runs") / f"math_prefix_rft_seed{args.seed}"
    return run_example(apply_options(config, args), args, run_dir)


if __name__ == "__main__":
    sys.exit(main())
