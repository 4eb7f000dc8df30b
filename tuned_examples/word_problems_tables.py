"""Tables and curves of finished runs of `word_problems_smollm2.py`.

This example shows:
    - how to read run directories, and files of completions of the evaluation command.
    - paired tests on the same problems: of each trained model against the base model, and of the
    methods against each other.

How to run this script
----------------------
`python [script file name].py runs/word_problems_* --out=docs/real_model`

All runs must have been started with the same data and evaluation options.

What to expect
--------------
OUT_tables.md (results with 95% intervals over problems, paired tests, one answer per problem before
and after), OUT_curves.csv and OUT_curves.png (rewards while training).

Results to expect
-----------------
What the runs hold: nothing is computed but the paired tests between methods.
"""

import argparse
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
from method_styles import DASHED, SOLID, STYLES

from prefix_rft_rllib.evaluation.comparison import compare_completions, read_other
from prefix_rft_rllib.evaluation.completions import ReadCompletions, read_completions
from prefix_rft_rllib.runs.run_directory import read_metrics

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # the backend has to be chosen first

METRICS = ("greedy_pass@1", "avg@")
"""Shown of each set; the second with whatever number of attempts there is."""
REWARDS = {"rollouts/reward_plain_mean": SOLID, "rollouts/reward_prefix_mean": DASHED}
SHARED = ("data", "num_eval_problems", "num_eval_samples")
"""What runs that are compared must have been started with alike."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    directory: Path
    summary: Mapping[str, Any]
    metrics: Sequence[Mapping[str, float]]

    @property
    def name(self) -> str:
        """Method and seed."""
        return f"{STYLES[self.summary['method']][0]}, seed {self.summary['seed']}"

    def hours(self) -> float:
        """Time of its iterations, in hours, without evaluation and start."""
        return sum(row["time/iteration"] for row in self.metrics) / 3600

    def answers_file(self, name: str, when: str = "after") -> Path:
        """Where its answers to a set are."""
        return self.directory / "evaluation" / when / name / f"{name}.jsonl"

    def completions(self, name: str, when: str = "after") -> ReadCompletions:
        """Its answers to a set."""
        return read_completions(self.answers_file(name, when))


def read_run(directory: Path) -> Run:
    """Read a run.

    Raises:
        ValueError: If it has not ended.
    """
    file = directory / "summary.json"
    if not file.is_file():
        raise ValueError(f"{directory} has no summary.json: let the run end with --resume first.")
    return Run(directory, json.loads(file.read_text()), read_metrics(directory))


def check_alike(runs: Sequence[Run]) -> None:
    """Check that runs can be compared.

    Raises:
        ValueError: Naming what they were started with differently.
    """
    for run in runs[1:]:
        for name in SHARED:
            ours, first = run.summary[name], runs[0].summary[name]
            if ours != first:
                raise ValueError(
                    f"{run.directory} was started with {name} {ours!r}, {runs[0].directory} with "
                    f"{first!r}: give runs that were started alike."
                )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def estimate(found: Mapping[str, float]) -> str:
    """Mean and 95% interval."""
    return f"{found['mean']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def shown_metrics(results: Mapping[str, Any]) -> list[str]:
    """Names of the metrics of a set that the table has."""
    return [name for name in results["overall"] if name.startswith(METRICS)]


def results_table(runs: Sequence[Run]) -> str:
    """Every model on every set."""
    before = runs[0].summary["before"]
    columns = [(name, metric) for name in before for metric in shown_metrics(before[name])]
    heads = ["model", "rollouts", "hours", *(f"{name}, {metric}" for name, metric in columns)]

    def cells(results: Mapping[str, Any]) -> list[str]:
        return [estimate(results[name]["overall"][metric]) for name, metric in columns]

    rows = [["before training", "", "", *cells(before)]]
    for run in runs:
        cost = [str(run.summary["num_rollouts"]), f"{run.hours():.2f}"]
        rows.append([run.name, *cost, *cells(run.summary["after"])])
    return table(heads, rows)


def test_cells(test: Mapping[str, Any]) -> list[str]:
    """Cells of a paired test."""
    counts = f"{test['num_better']} / {test['num_worse']}"
    return [estimate(test["difference"]), counts, f"{test['p_value']:.2g}"]


def against_base(runs: Sequence[Run]) -> Iterator[list[str]]:
    """Rows of the paired tests of each run against the base model."""
    for run in runs:
        for name, results in run.summary["after"].items():
            for kind in ("greedy", "sampled"):
                if kind in results["comparison"]:
                    yield [run.name, "base", name, kind, *test_cells(results["comparison"][kind])]


def against_each_other(runs: Sequence[Run]) -> Iterator[list[str]]:
    """Rows of the paired tests of runs with the same seed against each other."""
    for run, other in combinations(runs, 2):
        if run.summary["seed"] != other.summary["seed"]:
            continue
        for name in run.summary["after"]:
            ours = run.completions(name)
            hashes = {c.problem_id: c.problem_hash for c in ours.by_question.values()}
            theirs = read_other(other.answers_file(name), hashes)
            answers = list(ours.by_question.values())
            tests = compare_completions(answers, ours.fingerprint, theirs)
            for kind in ("greedy", "sampled"):
                if kind in tests:
                    yield [run.name, other.name, name, kind, *test_cells(tests[kind])]


def answers(runs: Sequence[Run], name: str, num_problems: int) -> Iterator[str]:
    """The greedy answers of all models to the first problems of a set, as lines of Markdown."""
    by_model = {"before training": runs[0].completions(name, "before")}
    by_model |= {run.name: run.completions(name) for run in runs}
    first = next(iter(by_model.values())).by_question
    greedy = [question for question in first if question.seed is None][:num_problems]
    for question in greedy:
        yield f"`{question.problem_id}`"
        yield ""
        for model, read in by_model.items():
            completion = read.by_question[question]
            yield f"    {model}: {completion.verdict}"
            # What a model wrote may hold anything: JSON's escapes leave one harmless line.
            yield f"        {json.dumps(completion.response)}"
        yield ""


def page(runs: Sequence[Run], num_answers: int) -> str:
    """All tables."""
    heads = ("model", "against", "problems", "attempts", "difference", "better / worse", "p")
    tests = [*against_base(runs), *against_each_other(runs)]
    lines = [results_table(runs), "", table(heads, tests), ""]
    for name in runs[0].summary["before"]:
        lines += [f"Greedy answers, {name}:", "", *answers(runs, name, num_answers)]
    return "\n".join(lines)


def write_curves(runs: Sequence[Run], out: Path) -> None:
    """Write the rewards of every iteration as CSV and PNG."""
    rows = [
        {"method": run.summary["method"], "seed": run.summary["seed"], "iteration": number}
        | {name: row[name] for name in REWARDS if name in row}
        for run in runs
        for number, row in enumerate(run.metrics, start=1)
    ]
    fields = ["method", "seed", "iteration", *REWARDS]
    with Path(f"{out}_curves.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=fields)
        writer.writeheader()
        writer.writerows(rows)
    figure, panel = plt.subplots(figsize=(7, 4))
    for run in runs:
        label, colour, _, _ = STYLES[run.summary["method"]]
        for name, line in REWARDS.items():
            points = [(i, row[name]) for i, row in enumerate(run.metrics, start=1) if name in row]
            if points:
                kind = "prefix" if "prefix" in name else "plain"
                look = {"color": colour, "linestyle": line, "label": f"{label}, {kind} rollouts"}
                panel.plot(*zip(*points, strict=True), **look)
    panel.set(xlabel="training iteration", ylabel="mean reward", ylim=(-0.02, 1.02))
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(f"{out}_curves.png", dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the runs; write tables and curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="directories of finished runs")
    parser.add_argument("--out", required=True, type=Path, help="path without suffix")
    parser.add_argument("--num-answers", type=int, default=2, help="problems of each set shown")
    args = parser.parse_args(arguments)
    try:
        runs = [read_run(directory) for directory in args.runs]
        check_alike(runs)
        text = page(runs, args.num_answers)
    except ValueError as error:
        parser.error(str(error))
    Path(f"{args.out}_tables.md").write_text(text, encoding="utf-8")
    write_curves(runs, args.out)


if __name__ == "__main__":
    main()
