"""The frame of the training scripts: RLlib's options, one run from start to saved model, or Tune.

The options are those of RLlib's own examples (`ray.rllib.examples.utils`). One that has no effect
here is an error that says why, and so is one of Tune's without `--tune`.
"""

import argparse
import json
import math
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.air.integrations.wandb import WANDB_ENV_VAR
from ray.rllib.examples.utils import (
    add_rllib_example_script_args,
    run_rllib_example_script_experiment,
    should_stop,
)
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_RETURN_MEAN,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)
from ray.tune.result import TRAINING_ITERATION

from prefix_rft_rllib import PrefixRFT, PrefixRFTConfig, metrics, start_ray
from prefix_rft_rllib.evaluation import evaluate_held_out
from prefix_rft_rllib.evaluation.report import write_results
from prefix_rft_rllib.reports.rollout_log import iteration_log
from prefix_rft_rllib.runs import progress

BEFORE_FILE = "before.json"
"""Of a run directory: results on held-out problems before training."""

OLD_STACK = "belongs to RLlib's old API stack. Leave it out"
HELD_OUT = (
    "has no effect: the env runners of the training attempt every held-out problem, each "
    "--evaluation-interval iterations"
)
NO_EFFECT = {
    "--env": "has no effect: each script has problems of its own. Take another script",
    "--num-agents": "has no effect: one language model is trained. Leave it out",
    "--evaluation-num-env-runners": HELD_OUT,
    "--evaluation-duration": HELD_OUT,
    "--evaluation-duration-unit": HELD_OUT,
    "--evaluation-parallel-to-training": HELD_OUT,
    "--output": "has no effect: the run directory holds the rollouts (docs/run_directory.md)",
    "--num-aggregator-actors-per-learner": "has no effect: the learners get each iteration's rows "
    "from the driver. Leave it out",
    "--num-gpus": "belongs to RLlib's old API stack. Use --num-gpus-per-learner",
    "--old-api-stack": OLD_STACK,
    "--enable-new-api-stack": OLD_STACK,
    "--local-mode": "is no more in Ray. With --num-env-runners 0 everything runs in one process",
}
"""Options of RLlib's examples that would do nothing, and why."""
TUNE_OPTIONS = (
    "--num-samples",
    "--max-concurrent-trials",
    "--verbose",
    "--tune-max-report-freq",
    "--wandb-key",
    "--wandb-project",
    "--wandb-run-name",
    "--as-release-test",
)
"""Options that Ray Tune reads, or RLlib's frame around it."""
LOOP_OPTIONS = ("--run-dir", "--log", "--resume")
"""Options of a run without Tune; not every script has them."""

LEAST = {
    "--stop-iters": 1,
    "--stop-timesteps": 1,
    "--checkpoint-freq": 0,
    "--evaluation-interval": 0,
    "--num-cpus": 0,
    "--num-samples": 1,
    "--max-concurrent-trials": 0,
    "--num-held-out": 1,
    **dict.fromkeys(("--num-rl-iterations", "--num-sft-iterations", "--num-eval-problems"), 1),
    "--num-eval-samples": 0,
    "--gpus": 0,
}
"""The smallest value of options that no setting checks; not every script has all of them."""


class Refusal(argparse.Action):
    """An option that is an error with its reason, whatever its value."""

    def __init__(self, *args: Any, reason: str, **kwargs: Any) -> None:
        super().__init__(*args, nargs="?", help=argparse.SUPPRESS, **kwargs)
        self._reason = reason

    def __call__(self, parser: argparse.ArgumentParser, *args: Any) -> None:
        """End with the reason."""
        parser.error(f"{self.option_strings[0]} {self._reason}.")


def refuse(parser: argparse.ArgumentParser, reasons: Mapping[str, str]) -> None:
    """Make options errors.

    Args:
        parser: What has these options; they keep their defaults.
        reasons: By option, why it cannot be used and what to do instead.
    """
    for option, reason in reasons.items():
        default = parser.get_default(_name(option))
        parser.add_argument(option, action=Refusal, reason=reason, default=default)


def example_parser(docstring: str, num_iterations: int) -> argparse.ArgumentParser:
    """RLlib's options, as they are meant here.

    Args:
        docstring: The script's; its first line describes the command.
        num_iterations: Default length of a run.

    Returns:
        A parser to add a script's own options to. `min_accuracy` among its defaults: the least
        avg@k by held-out set that `--as-test` asks for without `--stop-reward`, none here.
    """
    parser = argparse.ArgumentParser(
        description=docstring.splitlines()[0],
        conflict_handler="resolve",
        allow_abbrev=False,  # --seed would be --seeds, and --log be --log-level, where that is all
    )
    add_rllib_example_script_args(parser, default_iters=num_iterations)
    refuse(parser, NO_EFFECT)
    add = parser.add_argument
    add("--algo", choices=["PrefixRFT"], default="PrefixRFT", help="the algorithm of this package")
    add("--framework", choices=["torch"], default="torch", help="all there is")
    add("--resume", action="store_true", help="go on with the run that lies in its directory")
    add("--tune", action=argparse.BooleanOptionalAction, default=False, help="run by Ray Tune")
    iterations = "iterations to train (default: %(default)s)"
    add("--stop-iters", "--num-iterations", type=int, default=num_iterations, help=iterations)
    reward = "mean reward of an iteration's rollouts at which to stop (default: none)"
    add("--stop-reward", type=float, help=reward)
    timesteps = "sampled tokens at which to stop (default: none)"
    add("--stop-timesteps", type=int, help=timesteps)
    as_test = "fail unless --stop-reward was reached; without it, below the expected accuracy"
    add("--as-test", action="store_true", help=as_test)
    interval = "iterations between evaluations of held-out problems, 0 for none"
    add("--evaluation-interval", type=int, help=interval)
    envs = "responses that an env runner verifies at the same time"
    add("--num-envs-per-env-runner", type=int, help=envs)
    gpus = "GPUs of each learner (default: the script's, 0 on CPUs)"
    add("--num-gpus-per-learner", type=float, help=gpus)
    parser.set_defaults(no_tune=False, min_accuracy={})
    return parser


def parse_options(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Read the command line; what cannot be meant is an error.

    Args:
        parser: Of `example_parser`.
        arguments: Default: those of the process.

    Returns:
        The options.
    """
    args = parser.parse_args(arguments)
    for option, least in LEAST.items():
        value = getattr(args, _name(option), None)
        if value is not None and value < least:
            parser.error(f"{option} must be at least {least}, got {value}")
    if args.stop_reward is not None and not math.isfinite(args.stop_reward):
        parser.error(f"--stop-reward must be a finite number, got {args.stop_reward}")
    if args.tune:
        for option in changed_options(parser, args, LOOP_OPTIONS):
            parser.error(f"{option} has no effect with --tune: look into the trial's directory")
    else:
        for option in changed_options(parser, args, TUNE_OPTIONS):
            parser.error(f"{option} has no effect without Ray Tune: add --tune")
    has_key = args.wandb_key or WANDB_ENV_VAR in os.environ
    for option in (
        () if has_key else changed_options(parser, args, ("--wandb-project", "--wandb-run-name"))
    ):
        parser.error(f"{option} has no effect without --wandb-key or {WANDB_ENV_VAR}")
    has_goal = args.stop_reward is not None or (args.min_accuracy and not args.tune)
    if (args.as_test or args.as_release_test) and not has_goal:
        parser.error("--as-test needs --stop-reward, the mean reward to be reached")
    return args


def apply_options(config: PrefixRFTConfig, args: argparse.Namespace) -> PrefixRFTConfig:
    """Change what the options name; the rest stays the script's.

    Args:
        config: Changed in place.
        args: Of `parse_options`.

    Returns:
        The config.
    """

    def given(*names: str) -> dict[str, Any]:
        values = {name: getattr(args, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    config.env_runners(**given("num_env_runners", "num_envs_per_env_runner"))
    config.learners(**given("num_learners", "num_cpus_per_learner", "num_gpus_per_learner"))
    config.debugging(**given("log_level"))
    if args.evaluation_interval is not None:
        config.evaluation(evaluation_interval=args.evaluation_interval or None)
    if not args.tune:  # else Tune writes them
        config.checkpointing(every=args.checkpoint_freq or None)
    return config


def start(args: argparse.Namespace) -> None:
    """Start Ray, with `--num-cpus` if given."""
    num_cpus = {"num_cpus": args.num_cpus} if args.num_cpus else {}
    start_ray(log_to_driver=False, logging_level="ERROR", **num_cpus)


def stop_criteria(args: argparse.Namespace) -> dict[str, float]:
    """What ends a run, whichever comes first: by key of RLlib's result, from which value on."""
    criteria = {
        TRAINING_ITERATION: args.stop_iters,
        f"{ENV_RUNNER_RESULTS}/{EPISODE_RETURN_MEAN}": args.stop_reward,
        f"{ENV_RUNNER_RESULTS}/{NUM_ENV_STEPS_SAMPLED_LIFETIME}": args.stop_timesteps,
    }
    return {key: value for key, value in criteria.items() if value is not None}


def iterations(algo: PrefixRFT, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train until a criterion is met; nothing is trained that has its last iteration already.

    Args:
        algo: The algorithm.
        args: Of `parse_options`.

    Yields:
        RLlib's result of each iteration.
    """
    stop = stop_criteria(args)
    is_over = algo.iteration >= args.stop_iters
    while not is_over:
        result = algo.train()
        yield result
        is_over = should_stop(stop, result, keep_ray_up=True)


def held_out_before(algo: PrefixRFT, run_dir: Path, *, is_resumed: bool) -> dict[str, Any]:
    """Results on held-out problems before training; those of a resumed run are in its directory."""
    file = run_dir / BEFORE_FILE
    if is_resumed and file.is_file():
        return dict(json.loads(file.read_text()))
    before, _, _ = evaluate_held_out(algo)
    write_results(file, before)
    return before


def shortfalls(
    args: argparse.Namespace,
    result: Mapping[str, Any],
    held_out: Mapping[str, Mapping[str, float]],
) -> list[str]:
    """What `--as-test` finds missing.

    Args:
        args: Of `parse_options`.
        result: RLlib's result of the last iteration.
        held_out: Results on held-out problems after training.

    Returns:
        A sentence for each value below what is expected; empty without `--as-test`.
    """
    if not args.as_test:
        return []
    found = {name: values[metrics.AVG_AT_K] for name, values in held_out.items()}
    expected = args.min_accuracy
    if args.stop_reward is not None:
        reward = result.get(ENV_RUNNER_RESULTS, {}).get(EPISODE_RETURN_MEAN, math.nan)
        found, expected = {"mean reward": reward}, {"mean reward": args.stop_reward}
    return [
        f"--as-test: {name} is {found[name]:.3f}, expected at least {least}.\n"
        for name, least in expected.items()
        if not found[name] >= least
    ]


def exit_code(missed: Iterable[str]) -> int:
    """Print what is missing; 1 if anything is."""
    text = "".join(missed)
    sys.stdout.write(text)
    return 1 if text else 0


def run_example(config: PrefixRFTConfig, args: argparse.Namespace, run_dir: Path) -> int:
    """One run: evaluate, train, evaluate, save, and print where everything is; or leave it to Tune.

    Args:
        config: The run's settings.
        args: Of `parse_options`; with `log`, whether to print each iteration's rollout log.
        run_dir: Directory of a run without Tune.

    Returns:
        The exit code: 1 if `--as-test` finds something missing.
    """
    start(args)
    if args.tune:
        run_rllib_example_script_experiment(
            config, args, stop=stop_criteria(args), keep_config=True
        )
        return 0
    config.reporting(run_dir=str(run_dir))
    algo = PrefixRFT.resume(run_dir, config=config) if args.resume else config.build_algo()
    before = held_out_before(algo, run_dir, is_resumed=args.resume)
    result: dict[str, Any] = {}
    for result in iterations(algo, args):
        if args.log:
            sys.stdout.write(iteration_log(run_dir, result[TRAINING_ITERATION]))
    after, _, _ = evaluate_held_out(algo)
    checkpoint = algo.save_to_run_dir()
    model_dir = algo.save_pretrained(run_dir / "model")
    usage = progress.how_to_use(model_dir, algo.problem_set)
    algo.stop()

    summary = {"method": config.method, "seed": config.seed, "before": before, "after": after}
    (run_dir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    rows = [metrics.flatten({"evaluation": results}) for results in (before, after)]
    table = f"\n{progress.final_table(*rows)}" if after else ""
    sys.stdout.write(
        f"{table}\n"
        f"Run:         {run_dir} (metrics.jsonl, rollouts/)\n"
        f"Checkpoint:  {checkpoint} (PrefixRFT.from_checkpoint)\n"
        f"TensorBoard: tensorboard --logdir {shlex.quote(str(run_dir.parent))}\n"
        f"Model:       {model_dir}, to use it:\n\n{usage}"
    )
    return exit_code(shortfalls(args, result, after))


def changed_options(
    parser: argparse.ArgumentParser, args: argparse.Namespace, options: Sequence[str]
) -> list[str]:
    """Those of the options whose value is not the default; a script may lack some."""
    values = {option: getattr(args, _name(option), None) for option in options}
    return [option for option in options if values[option] != parser.get_default(_name(option))]


def _name(option: str) -> str:
    """The attribute of the parsed options that an option sets."""
    return option.lstrip("-").replace("-", "_")
