"""Any training method on the generated word problems, over several seeds, into one table.

This example shows:
    - all methods of `prefix_rft_rllib.methods` on the task, the model and the optimizer of
    `toy_arithmetic_prefix_rft.py`; nothing but `method` and `method_config` differs between them.
    - what fewer demonstrations (`--demonstration-fraction`) and flawed ones (`--flawed-fraction`)
    change; the problems stay the same.

How to run this script
----------------------
`python [script file name].py --method=luffy --seeds=1 --stop-iters=6`
`python [script file name].py --method=prefix_rft --method=luffy --seeds=3`
`python [script file name].py --method=all --seeds=3`

With other settings of a method and flawed demonstrations:
`python [script file name].py --method=prefix_rft --seeds=3 --flawed-fraction=0.3
--method-config='{"entropy_keep_fraction": 0.5}'`

Runs follow one another: seeds 0, 1, ... of the first method, then of the next. For several
processes at once give each an `--out` of its own; `plot_methods.py` reads any number of tables. For
debugging, use `--num-env-runners=0`.

Settings that matter: `method_config_for` in `toy_arithmetic_prefix_rft.py` fits schedules to the
number of iterations and ReLIFT and SFT+RFT to the task's size; `--method-config` goes on top of it.
Everything else is each method's default, not tuned for this task.

What to expect
--------------
Tables, each row as soon as it is there: `OUT.csv` has one row per evaluation and held-out set
(iteration 0: before training), `OUT_rewards.csv` one row per iteration (an empty cell: no rollouts
of that kind). A run with the same method, `method_config`, two fractions and seed replaces its
rows; other options are not in the tables, so keep tables of their own for another run length. Each
run also has a run directory. With `--as-test --stop-reward=R` the exit code is 1 if a run
ends below that reward.

Results to expect
-----------------
docs/toy_arithmetic.md has the measured ones.
"""

import argparse
import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from example_script import (
    TUNE_OPTIONS,
    apply_options,
    example_parser,
    exit_code,
    iterations,
    parse_options,
    refuse,
    shortfalls,
    start,
)
from toy_arithmetic_prefix_rft import NUM_HELD_OUT, NUM_ITERATIONS, build_config

from prefix_rft_rllib import PrefixRFTConfig, metrics
from prefix_rft_rllib.evaluation import evaluate_held_out
from prefix_rft_rllib.methods import METHODS
from prefix_rft_rllib.runs import progress
from prefix_rft_rllib.runs.run_directory import read_metrics

RUN = ("method", "method_config", "demonstration_fraction", "flawed_fraction", "seed")
"""The columns that say which run a row belongs to."""
ACCURACIES = (metrics.AVG_AT_K, metrics.PASS_AT_K, metrics.GREEDY_ACCURACY)
REWARDS = (
    metrics.REWARD_PLAIN_MEAN,
    metrics.REWARD_PREFIX_MEAN,
    metrics.REWARD_MEAN,
    metrics.PREFIX_WINDOW_LOW,
    metrics.PREFIX_WINDOW_HIGH,
    metrics.NUM_GROUPS_WITH_SIGNAL,
)


class Table:
    """A CSV file that grows row by row; each row is on disk once it was added.

    Args:
        path: The file; made with its folder if missing, otherwise added to.
        columns: Its header, beginning with `RUN`.

    Raises:
        ValueError: If the file is there with another header.
    """

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path, self._columns = path, columns
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            self._rewrite([])
        with path.open(newline="") as file:
            found = tuple(next(csv.reader(file), ()))
        if found != columns:
            raise ValueError(
                f"--out: {path} has the columns {', '.join(found) or 'of an empty file'} instead "
                f"of {', '.join(columns)}. Choose another file."
            )

    def remove(self, run: Mapping[str, Any]) -> None:
        """Remove the rows of a run, if there are any.

        Args:
            run: Its values of the columns `RUN`.
        """
        with self.path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        kept = [row for row in rows if any(row[name] != str(run[name]) for name in RUN)]
        if len(kept) < len(rows):
            self._rewrite(kept)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; what it has no value for is an empty cell."""
        with self.path.open("a", newline="") as file:
            self._writer(file).writerow(row)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        """Write the file anew, in one step: a killed process leaves the old one or the new one."""
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with temporary.open("w", newline="") as file:
            writer = self._writer(file)
            writer.writeheader()
            writer.writerows(rows)
        temporary.replace(self.path)

    def _writer(self, file: TextIO) -> csv.DictWriter:
        return csv.DictWriter(file, self._columns, lineterminator="\n")


def config_of(args: argparse.Namespace, method: str, seed: int) -> PrefixRFTConfig:
    """The settings of one run, with its run directory."""
    config = build_config(
        method, seed=seed, num_iterations=args.stop_iters, num_held_out=args.num_held_out
    )
    config.training(method_config={**config.method_config, **args.method_config})
    data_config = {**config.env_config["data_config"], "flawed_fraction": args.flawed_fraction}
    config.environment(
        env_config={
            **config.env_config,
            "data_config": data_config,
            "demonstration_fraction": args.demonstration_fraction,
        }
    )
    changed = dict(args.method_config)
    for name, usual in (("demonstration_fraction", 1.0), ("flawed_fraction", 0.0)):
        if getattr(args, name) != usual:
            changed[name] = getattr(args, name)
    parts = [method, *(f"{name}={value}" for name, value in changed.items()), f"seed{seed}"]
    apply_options(config, args)
    return config.reporting(run_dir=str(args.run_root / f"toy_methods_{'_'.join(parts)}"))


def train(
    config: PrefixRFTConfig, args: argparse.Namespace, tables: tuple[Table, Table]
) -> list[str]:
    """One run, evaluated before it, at each `evaluation_interval` and at its end.

    Args:
        config: Its settings.
        args: The options.
        tables: Where evaluations and rewards are added.

    Returns:
        What `--as-test` finds missing.
    """
    accuracies, rewards = tables
    run = {
        "method": config.method,
        "method_config": json.dumps(config.method_config, sort_keys=True),
        "demonstration_fraction": config.env_config["demonstration_fraction"],
        "flawed_fraction": config.env_config["data_config"]["flawed_fraction"],
        "seed": config.seed,
    }

    def add_evaluation(iteration: int, results: Mapping[str, Mapping[str, float]]) -> None:
        for name, values in results.items():
            shown = {key: values[key] for key in ACCURACIES}
            accuracies.add({**run, "iteration": iteration, "set": name, **shown})

    algo = config.build_algo()
    try:
        for table in tables:
            table.remove(run)
        add_evaluation(0, evaluate_held_out(algo)[0])
        results: Mapping[str, Mapping[str, float]] = {}
        for result in iterations(algo, args):
            iteration = result["training_iteration"]
            row = read_metrics(config.run_dir)[-1]
            shown = {key: row.get(f"{metrics.ROLLOUTS}/{key}", "") for key in REWARDS}
            rewards.add({**run, "iteration": iteration, **shown})
            results = progress.held_out_results(row)
            add_evaluation(iteration, results)
        if not results:
            results = evaluate_held_out(algo)[0]
            add_evaluation(iteration, results)
        if args.checkpoint_at_end:
            algo.save_to_run_dir()
        return shortfalls(args, result, results)
    finally:
        algo.stop()


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line (default: the process's)."""
    parser = example_parser(__doc__, NUM_ITERATIONS)
    no_tune = (
        "has no effect: runs follow one another. Tune runs toy_arithmetic_prefix_rft.py --tune"
    )
    refuse(parser, dict.fromkeys(("--tune", *TUNE_OPTIONS), no_tune))
    no_resume = (
        "has no effect: runs begin anew. `python -m prefix_rft_rllib.resume` goes on with one"
    )
    refuse(parser, {"--resume": no_resume})
    add = parser.add_argument
    add("--method", action="append", required=True, help="name of a method, repeatable; or 'all'")
    add("--seeds", type=int, required=True, metavar="N", help="seeds 0 to N - 1")
    add("--method-config", default="{}", metavar="JSON", help="settings of the method")
    add("--demonstration-fraction", type=float, default=1.0, help="of the training problems")
    add("--flawed-fraction", type=float, default=0.0, help="wrong operations in demonstrations")
    add("--num-held-out", type=int, default=NUM_HELD_OUT, help="problems of each held-out set")
    add("--out", type=Path, metavar="CSV", help="default: toy_methods.csv in --run-root")
    add("--run-root", type=Path, default=Path("runs"), help="folder of the run directories")
    args = parse_options(parser, arguments)
    unknown = [name for name in args.method if name not in METHODS and name != "all"]
    if unknown:
        parser.error(f"unknown --method {', '.join(unknown)}; known: all, {', '.join(METHODS)}")
    args.method = list(METHODS) if "all" in args.method else list(dict.fromkeys(args.method))
    if args.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {args.seeds}")
    try:
        args.method_config = json.loads(args.method_config)
    except ValueError as error:
        parser.error(f"--method-config is not JSON: {error}")
    if not isinstance(args.method_config, dict):
        parser.error("--method-config must be a JSON object, such as '{\"sft_coeff\": 0.5}'")
    args.out = args.out or args.run_root / "toy_methods.csv"
    return args


def main() -> int:
    """Train every method with every seed."""
    args = parse_arguments()
    for method in args.method:
        config_of(args, method, seed=0).validate()  # a mistake shows before the first run
    tables = (
        Table(args.out, (*RUN, "iteration", "set", *ACCURACIES)),
        Table(args.out.with_name(f"{args.out.stem}_rewards.csv"), (*RUN, "iteration", *REWARDS)),
    )
    start(args)
    missed: list[str] = []
    for method in args.method:
        for seed in range(args.seeds):
            sys.stdout.write(f"\n{method}, seed {seed}\n")
            missed += train(config_of(args, method, seed), args, tables)
    sys.stdout.write("\n" + "".join(f"{table.path}\n" for table in tables))
    return exit_code(missed)


if __name__ == "__main__":
    sys.exit(main())
