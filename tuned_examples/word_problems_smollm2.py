r"""Prefix-RFT, RFT, SFT or SFT+RFT of a real model on real word problems, in pieces if need be.

This example shows:
    - four methods of `prefix_rft_rllib.methods` with SmolLM2-135M-Instruct (`smollm2_model.py`) on
    elementary word problems, ASDiv (arXiv 2106.15772); both RL methods and the second stage of
    SFT+RFT have the same number of rollouts, and SFT is the first stage of SFT+RFT.
    - evaluation before and after by the function of `python -m prefix_rft_rllib.evaluate`: on
    held-out ASDiv, on SVAMP (arXiv 2103.07191), whose problems vary those of ASDiv so that surface
    cues mislead, and on GSM8K, which is harder than anything that is trained on.
    - a run that is killed or paused anywhere and goes on to the same numbers.

How to run this script
----------------------
`python smollm2_model.py --out=smollm2`, then
`python [script file name].py --method=prefix_rft --model=smollm2 --data-dir=DIR --stop-iters=2
--num-eval-problems=8`

It pauses after iteration 2. The same command with `--resume` and without `--stop-iters` goes on
from the newest checkpoint to the end. Runs that are compared need the same lengths and evaluation
options. For debugging, leave `--num-env-runners` at 0, its default here.

DIR holds `train_asdiv.jsonl.gz` and, for evaluation alone, `eval_svamp.jsonl` and
`eval_gsm8k.jsonl`: a JSON object a line with `id`, `prompt`, `answer` (a number) and
`demonstration` (the calculation, then the answer in a box: `7 + 2 = 9. The answer is \boxed{9}.`).
They are not shipped: ASDiv's licence is CC BY-NC 4.0.

Settings that matter: `TEMPLATE`, one worked example in front and no chat template, as the model
hardly boxes an answer when it is asked in words through its template; `--lr` and `--sft-lr`;
`MAX_RESPONSE_TOKENS` (every demonstration fits); `OMP_NUM_THREADS`, no more than there are free
cores.

Trials of the prompt, the model as it is, greedy, 64 held-out problems of ASDiv: 12 are solved with
this one, 3 with the words "Problem" and "Solution" in the place of "Question" and "Answer". Trials
of learning rates, equally many for each method: none was made yet; all are 1e-5.

What to expect
--------------
One line per iteration. A run directory with the files of docs/run_directory.md, and
    - `run.json`, what the run was started with: `--resume` with anything else is an error.
    - `problems/`, ASDiv as it was split.
    - `checkpoints/`: the newest two, one each `--checkpoint-freq` iterations and at each pause.
    - `evaluation/before/SET/SET.jsonl` and `evaluation/after/...`: completions, which `--compare`
    of the evaluation command reads, each beside its `results.json`. `evaluation/before` is the same
    for all methods: copied into a new run directory it is not asked again.
    - `model/`, the trained model, and `summary.json`: what the run was started with, and by set the
    results before and after, with 95% intervals, and the paired comparison of the two.

Results to expect
-----------------
Not measured yet.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from example_script import (
    TUNE_OPTIONS,
    apply_options,
    changed_options,
    example_parser,
    parse_options,
    refuse,
    start,
)
from resumable_run import RUN_FILE, begin, trained
from smollm2_model import sha256

from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.envs.rows.data_sources import DataSource
from prefix_rft_rllib.envs.rows.problem_rows import read_rows
from prefix_rft_rllib.evaluate import EvaluationOptions, evaluate
from prefix_rft_rllib.evaluation.report import table, write_results

TEMPLATE = r"""Question: A box has 12 pens. Mia puts in 5 more. How many pens are in the box?
Answer:
12 + 5 = 17. The answer is \boxed{17}.

Question: {prompt}
Answer:
"""
"""One worked example; the response begins on a line of its own, so that a demonstration's tokens
are those of its text alone."""
PROMPT = {"prompt_template": TEMPLATE, "chat_template": False}
MAX_PROMPT_TOKENS = 256
MAX_RESPONSE_TOKENS = {"asdiv": 50, "svamp": 50, "gsm8k": 128}
"""The longest demonstration of ASDiv has 48 tokens and an end token. GSM8K takes several steps."""
NUM_PROBLEMS_PER_ITERATION = 8
GROUP_SIZE = 8
NUM_RL_ITERATIONS = 100
NUM_SFT_ITERATIONS = 460
"""Three epochs, as in the paper's SFT, of the 1,226 training problems, 8 an iteration."""
SFT_WARMUP_FRACTION = 0.1
"""The paper's, and the default of SFT+RFT's first stage."""
LR = SFT_LR = 1e-5
NUM_PARTS = 10
"""Of ASDiv; one of them is held out."""
FILES = {
    "asdiv": "train_asdiv.jsonl.gz",
    "svamp": "eval_svamp.jsonl",
    "gsm8k": "eval_gsm8k.jsonl",
}
"""By data set, its file in `--data-dir`."""
STARTED_WITH = (
    *("method", "seed", "compute_dtype", "lr", "sft_lr"),
    *("num_rl_iterations", "num_sft_iterations", "num_eval_problems", "num_eval_samples"),
)
"""Options that a run keeps to its end."""

OF_NO_EFFECT = {
    "prefix_rft": ("--sft-lr", "--num-sft-iterations"),
    "rft": ("--sft-lr", "--num-sft-iterations"),
    "sft": ("--lr", "--num-rl-iterations"),
}


def method_config_for(args: argparse.Namespace) -> dict[str, Any]:
    """Settings of the method that must fit the run; the others are its defaults."""
    own: dict[str, dict[str, Any]] = {
        "prefix_rft": {"num_schedule_iterations": args.num_rl_iterations},
        "sft_rft": {
            "num_sft_iterations": args.num_sft_iterations,
            "sft_lr": args.sft_lr,
            "sft_warmup_fraction": SFT_WARMUP_FRACTION,
        },
    }
    return own.get(args.method, {})


def num_iterations_of(args: argparse.Namespace) -> int:
    """Length of the whole run: equal numbers of rollouts wherever there are any."""
    return {
        "prefix_rft": args.num_rl_iterations,
        "rft": args.num_rl_iterations,
        "sft": args.num_sft_iterations,
        "sft_rft": args.num_sft_iterations + args.num_rl_iterations,
    }[args.method]


def build_config(args: argparse.Namespace) -> PrefixRFTConfig:
    """The run's settings.

    Args:
        args: Of `parse_arguments`.

    Returns:
        Settings whose data is the training part of ASDiv in the run directory.
    """
    config = (
        PrefixRFTConfig()
        .environment(
            "PrefixRFT/Math-v0",
            env_config={
                **PROMPT,
                "data": str(problems_file(args.run_dir, "asdiv_train")),
                "max_prompt_tokens": MAX_PROMPT_TOKENS,
                "max_response_tokens": MAX_RESPONSE_TOKENS["asdiv"],
            },
        )
        .env_runners(num_env_runners=0, engine="transformers")
        .learners(share_prompts=None)  # two thirds of a row are its prompt
        .training(
            model_path=args.model,
            method=args.method,
            method_config=method_config_for(args),
            group_size=GROUP_SIZE,
            num_problems_per_iteration=NUM_PROBLEMS_PER_ITERATION,
            num_problems_per_minibatch=NUM_PROBLEMS_PER_ITERATION,
            lr=args.lr,
            compute_dtype=args.compute_dtype,
        )
        .debugging(seed=args.seed, log_level="ERROR")
        .reporting(run_dir=str(args.run_dir))
    )
    if args.method == "sft":  # an optimizer step an iteration, as in the first stage of SFT+RFT
        num_warmup = round(SFT_WARMUP_FRACTION * args.num_sft_iterations)
        config.training(lr=args.sft_lr, lr_warmup_steps=num_warmup)
    return apply_options(config, args)


def problems_file(run_dir: Path, name: str) -> Path:
    """Where a part of ASDiv lies."""
    return run_dir / "problems" / f"{name}.jsonl"


def split_asdiv(source: Path) -> dict[str, list[str]]:
    """Split ASDiv; equal problems are never on both sides.

    Args:
        source: Its file.

    Returns:
        JSON lines of "asdiv_train" and "asdiv_held_out".

    Raises:
        ValueError: If a row has no `prompt`; it is named.
    """
    parts: dict[str, list[str]] = {"asdiv_train": [], "asdiv_held_out": []}
    for place, row in read_rows(DataSource(str(source))):
        if "prompt" not in row:
            raise ValueError(f"{place}: the row has no `prompt`, but {', '.join(row)}.")
        digest = hashlib.sha256(str(row["prompt"]).encode()).digest()
        is_held_out = int.from_bytes(digest) % NUM_PARTS == 0
        parts["asdiv_held_out" if is_held_out else "asdiv_train"].append(json.dumps(row))
    return parts


def begin_run(args: argparse.Namespace) -> None:
    """Begin the run or go on with it; its problems lie in its directory then.

    Args:
        args: Of `parse_arguments`.

    Raises:
        ValueError: If the directory holds a run without `--resume`, or none, or another, with it.
    """
    parts = split_asdiv(args.data_dir / FILES["asdiv"])
    run: dict[str, Any] = {name: getattr(args, name) for name in STARTED_WITH}
    run["data"] = {name: sha256(args.data_dir / file) for name, file in FILES.items()}
    begin(args.run_dir, run, resume=args.resume)
    for name, lines in parts.items():
        file = problems_file(args.run_dir, name)
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def measure(
    model: str, args: argparse.Namespace, when: str, other: str | None = None
) -> dict[str, Any]:
    """Evaluate a model on the three sets; what was answered before is not asked again.

    Args:
        model: Directory.
        args: Of `parse_arguments`.
        when: "before" or "after".
        other: What it is compared with: "before".

    Returns:
        By set, what `evaluate` returns of one.
    """
    held_out = problems_file(args.run_dir, "asdiv_held_out")
    sources = {"asdiv_held_out": str(held_out)}
    sources |= {name: f"{name}={args.data_dir / FILES[name]}" for name in ("svamp", "gsm8k")}
    folder = args.run_dir / "evaluation"
    results = {}
    for name, source in sources.items():
        options = EvaluationOptions(
            num_samples=args.num_eval_samples,
            num_problems=args.num_eval_problems,
            max_prompt_tokens=MAX_PROMPT_TOKENS,
            max_response_tokens=MAX_RESPONSE_TOKENS[name.removesuffix("_held_out")],
            num_env_runners=args.num_env_runners or 0,
            env_config=PROMPT,
        )
        compare = other and folder / other / name / f"{name}.jsonl"
        out = folder / when / name
        found = evaluate(model, [source], out, options=options, compare=compare)
        results[name] = found["benchmarks"][name]
    sys.stdout.write(f"\n{when} training: {table({'model': model, 'benchmarks': results})}\n\n")
    return results


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line (default: the process's)."""
    parser = example_parser(__doc__, NUM_RL_ITERATIONS)
    no_tune = "has no effect: a run is made in pieces. Tune runs math_prefix_rft.py --tune"
    at_ends = "has no effect: models are evaluated before and after training"
    length = "has no effect: methods are compared at equal lengths. Use --stop-iters to pause"
    always = "has no effect: a run that ends or pauses leaves a checkpoint"
    refuse(parser, dict.fromkeys(("--tune", "--as-test", *TUNE_OPTIONS), no_tune))
    refuse(parser, dict.fromkeys(("--stop-reward", "--stop-timesteps"), length))
    refuse(parser, {"--evaluation-interval": at_ends, "--checkpoint-at-end": always})
    add = parser.add_argument
    add("--method", choices=("prefix_rft", "rft", "sft", "sft_rft"), required=True)
    add("--model", required=True, help="directory that smollm2_model.py made")
    add("--data-dir", type=Path, required=True, help=f"folder with {', '.join(FILES.values())}")
    add("--seed", type=int, default=0)
    precision = (
        "of the learner: bfloat16 where the processor has units for it; default: %(default)s"
    )
    add("--compute-dtype", choices=("float32", "bfloat16"), default="float32", help=precision)
    add("--lr", type=float, default=LR, help="of RL (default: %(default)s)")
    add("--sft-lr", type=float, default=SFT_LR, help="of SFT (default: %(default)s)")
    add("--num-rl-iterations", type=int, default=NUM_RL_ITERATIONS, help="default: %(default)s")
    add("--num-sft-iterations", type=int, default=NUM_SFT_ITERATIONS, help="default: %(default)s")
    pause = "iteration after which to pause (default: the run's last)"
    add("--stop-iters", "--num-iterations", type=int, help=pause)
    add("--num-eval-problems", type=int, help="problems of each set, spread evenly; default: all")
    add("--num-eval-samples", type=int, default=0, help="sampled attempts beside the greedy one")
    add("--run-dir", type=Path, help="default: runs/word_problems_METHOD_seedSEED")
    parser.set_defaults(checkpoint_freq=10)
    args = parse_options(parser, arguments)
    for option in changed_options(parser, args, OF_NO_EFFECT.get(args.method, ())):
        parser.error(f"{option} has no effect with --method {args.method}: leave it out")
    missing = [name for name in FILES.values() if not (args.data_dir / name).is_file()]
    if missing:
        parser.error(
            f"--data-dir: {args.data_dir} must hold {', '.join(FILES.values())}; missing: "
            f"{', '.join(missing)}. The top of this script tells what is in them."
        )
    if not (Path(args.model) / "config.json").is_file():
        parser.error(f"--model: {args.model} is no model; `smollm2_model.py --out=DIR` makes one")
    args.model = str(Path(args.model).absolute())
    total = num_iterations_of(args)
    args.stop_iters = min(args.stop_iters or total, total)
    run_dir = args.run_dir or Path("runs") / f"word_problems_{args.method}_seed{args.seed}"
    args.run_dir = run_dir.absolute()
    return args


def summary_of(
    args: argparse.Namespace, before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, Any]:
    """What `summary.json` holds."""
    run = json.loads((args.run_dir / RUN_FILE).read_text())
    num_rl = 0 if args.method == "sft" else args.num_rl_iterations
    num_rollouts = num_rl * NUM_PROBLEMS_PER_ITERATION * GROUP_SIZE
    return {**run, "num_rollouts": num_rollouts, "before": before, "after": after}


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate, train and evaluate; what is done already is not done again."""
    args = parse_arguments(arguments)
    try:
        config = build_config(args)
        config.validate()
        begin_run(args)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    start(args)
    before = measure(args.model, args, "before")
    algo = trained(config, args)
    try:
        if algo.iteration < num_iterations_of(args):
            sys.stdout.write(f"paused after iteration {algo.iteration}; --resume goes on\n")
            return 0
        model = algo.save_pretrained(args.run_dir / "model")
    finally:
        algo.stop()
    after = measure(str(model), args, "after", other="before")
    write_results(args.run_dir / "summary.json", summary_of(args, before, after))
    sys.stdout.write(f"{args.run_dir / 'summary.json'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
