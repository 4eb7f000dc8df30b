"""Draw held-out accuracy curves of finished runs, one colour per method.

This example shows:
    - how to read run directories: `summary.json` and `metrics.jsonl`.
    - means over seeds with 95% intervals (Student's t), one panel per held-out set.

How to run this script
----------------------
`python [script file name].py runs/toy_arithmetic_* --out=docs/toy_arithmetic_curves
--title="From clean demonstrations Prefix-RFT and SFT learn the task, RFT hardly"`

`plot_methods.py` draws the tables of `toy_arithmetic_methods.py`.

What to expect
--------------
OUT.csv (one row per evaluation) and OUT.png.

Results to expect
-----------------
docs/toy_arithmetic_curves.png, from the runs of README.md.
"""

import argparse
import csv
import json
import textwrap
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from method_styles import STYLES, half_width

from prefix_rft_rllib.runs.run_directory import read_metrics

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # the backend has to be chosen first

METRIC = "avg_at_k"


def evaluations(run_dir: Path) -> list[dict]:
    """One row per evaluation of a run: method, seed, iteration, set, avg@k."""
    summary = json.loads((run_dir / "summary.json").read_text())
    common = {"method": summary["method"], "seed": summary["seed"]}
    rows = [
        {**common, "iteration": 0, "set": name, METRIC: values[METRIC]}
        for name, values in summary["before"].items()
    ]
    for row in read_metrics(run_dir):
        for key, value in row.items():
            group, _, rest = key.partition("/")
            name, _, metric = rest.partition("/")
            if group == "evaluation" and metric == METRIC:
                iteration = row["training_iteration"]
                rows.append({**common, "iteration": iteration, "set": name, METRIC: value})
    return rows


def draw(rows: list[dict], path: Path, title: str) -> None:
    """One panel per held-out set; the shaded band is the 95% interval of the mean over seeds."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    figure, panels = plt.subplots(1, len(sets), figsize=(5 * len(sets), 3.6), sharey=True)
    num_seeds = len({row["seed"] for row in rows})
    for panel, name in zip(np.atleast_1d(panels), sets, strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            values = defaultdict(list)
            for row in rows:
                if row["set"] == name and row["method"] == method:
                    values[row["iteration"]].append(row[METRIC])
            iterations = sorted(values)
            means = np.array([np.mean(values[i]) for i in iterations])
            half = np.array([half_width(values[i]) for i in iterations])
            label, colour, line, marker = STYLES[method]
            look = {"color": colour, "linestyle": line, "marker": marker, "ms": 3}
            panel.plot(iterations, means, label=label, **look)
            panel.fill_between(iterations, means - half, means + half, color=colour, alpha=0.2)
        panel.set(title=f"{name} problems", xlabel="training iteration", ylim=(0, 1))
        panel.grid(alpha=0.3)
    first = np.atleast_1d(panels)[0]
    first.set_ylabel("avg@k (share of samples correct)")
    first.legend()
    title = f"{title} (mean of {num_seeds} seeds, band: 95% interval)"
    figure.suptitle(textwrap.fill(title, 65 * len(sets)), fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Read the runs, write CSV and PNG."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run directories with summary.json")
    parser.add_argument("--out", required=True, type=Path, help="path without suffix")
    parser.add_argument("--title", default="Held-out accuracy", help="the figure's one claim")
    args = parser.parse_args()
    rows = [row for run in args.runs for row in evaluations(run)]
    with args.out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, args.out.with_suffix(".png"), args.title)


if __name__ == "__main__":
    main()
