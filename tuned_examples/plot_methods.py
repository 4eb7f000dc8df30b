"""Draw the tables of `toy_arithmetic_methods.py`: accuracy on held-out problems, or rewards.

This example shows:
    - how methods compare while they train: means over seeds with 95% intervals (Student's t), each
    method in its own look (`method_styles.py`).
    - from a table of evaluations: one column of panels per held-out set.
    - from a table of rewards: plain rollouts solid, rollouts from a prefix dashed, and with
    `--window` the prefix window below.

How to run this script
----------------------
`python [script file name].py runs/toy_methods.csv --out=runs/accuracy`
`python [script file name].py runs/toy_methods_rewards.csv --window --out=runs/rewards`

Of several tables, some methods and one setting of the demonstrations:
`python [script file name].py runs/a.csv runs/b.csv --method=prefix_rft --method=sft
--where=flawed_fraction=0.3 --title="Flawed demonstrations hurt SFT" --out=docs/flawed`

Settings that matter: `--title`, which should state the one thing that the figure shows; `--where`,
which selects rows where a table has several settings of one method.

What to expect
--------------
OUT.png, and OUT.csv with the rows that were drawn, in the same form. Several settings of the
demonstrations give one row of panels each (rewards: one column). All panels of one quantity have
the same limits.

Results to expect
-----------------
What the tables hold; nothing is computed but means and intervals.
"""

import argparse
import csv
import textwrap
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from method_styles import DASHED, SOLID, STYLES, half_width

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # the backend has to be chosen first

Row = dict[str, str]
DEMONSTRATIONS = ("demonstration_fraction", "flawed_fraction")
ACCURACY_LABELS = {
    "avg_at_k": "avg@k (share of samples correct)",
    "pass_at_k": "pass@k (share of problems solved)",
    "greedy_accuracy": "greedy accuracy (share of problems)",
}
PLAIN, PREFIX = "reward_plain_mean", "reward_prefix_mean"
LOW, HIGH = "prefix_window_low", "prefix_window_high"
LIMITS = (-0.02, 1.02)


def read_rows(paths: list[Path]) -> list[Row]:
    """All rows of some tables of one kind.

    Raises:
        ValueError: If there is no row, a run stands in two tables, or the tables differ in kind.
    """
    rows: list[Row] = []
    origin: dict[tuple[str, ...], Path] = {}
    for path in paths:
        with path.open(newline="") as file:
            table = list(csv.DictReader(file))
        for row in table:
            if rows and row.keys() != rows[0].keys():
                raise ValueError(f"{path} has other columns than {paths[0]}: draw them apart.")
            run = tuple(row[name] for name in ("method", "method_config", *DEMONSTRATIONS, "seed"))
            if origin.setdefault(run, path) != path:
                raise ValueError(f"{origin[run]} and {path} both hold the run {run}.")
            rows.append(row)
    if not rows:
        raise ValueError(f"No rows in {', '.join(map(str, paths))}.")
    return rows


def select(rows: list[Row], methods: list[str], where: list[str]) -> list[Row]:
    """The rows of some methods (all if there are none) that match every COLUMN=VALUE.

    Raises:
        ValueError: If nothing matches, a method has no style, or several settings are left of
            one: a mean over them would be no method's.
    """
    unknown = sorted({row["method"] for row in rows} - STYLES.keys())
    if unknown:
        raise ValueError(f"No style for {', '.join(unknown)}: add one in method_styles.py.")
    for method in methods:
        if all(row["method"] != method for row in rows):
            raise ValueError(f"--method {method}: not in the tables.")
    rows = [row for row in rows if not methods or row["method"] in methods]
    for condition in where:
        column, _, value = condition.partition("=")
        if column not in (rows or [{}])[0]:
            raise ValueError(f"--where {condition}: no such column, or no row before this one.")
        rows = [row for row in rows if row[column] == value]
    if not rows:
        raise ValueError(f"No row matches --where {' '.join(where)}.")
    settings: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for row in rows:
        settings[row["method"], *demonstrations_of(row)].add(row["method_config"])
    for (method, *_), found in settings.items():
        if len(found) > 1:
            raise ValueError(
                f"{method} stands in the tables with several settings: {' and '.join(found)}. "
                "Select one with --where 'method_config={...}'."
            )
    return rows


def demonstrations_of(row: Row) -> tuple[str, ...]:
    """The settings of the demonstrations that a run learned from."""
    return tuple(row[name] for name in DEMONSTRATIONS)


def curve(rows: list[Row], column: str) -> np.ndarray:
    """Mean and interval over seeds at each iteration with a value.

    Args:
        rows: Rows of one curve; empty cells are left out.
        column: What is averaged.

    Returns:
        Iteration, mean, half width of the 95% interval and number of seeds, float64, shape (N, 4).
    """
    values: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row[column] != "":
            values[int(row["iteration"])].append(float(row[column]))
    points = [(i, np.mean(v), half_width(v), len(v)) for i, v in sorted(values.items())]
    return np.array(points, dtype=float).reshape(-1, 4)


def by_method(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows by method, in the order of the styles."""
    found = {method: [row for row in rows if row["method"] == method] for method in STYLES}
    return {method: own for method, own in found.items() if own}


def draw_curves(panel: Axes, rows: list[Row], column: str, line: object = None) -> set[int]:
    """Draw one curve per method into a panel; returns the numbers of seeds at its points.

    Args:
        panel: Where to draw.
        rows: Rows of this panel.
        column: What is drawn.
        line: Line style; default: the method's own.
    """
    counts: set[int] = set()
    for method, own in by_method(rows).items():
        points = curve(own, column)
        if not len(points):
            continue  # no rollouts of this kind, in any iteration
        iterations, means, half, seeds = points.T
        _, colour, own_line, marker = STYLES[method]
        panel.plot(
            iterations,
            means,
            color=colour,
            linestyle=line or own_line,
            marker=marker,
            markevery=max(1, len(points) // 8),
            markersize=4,
            linewidth=1.4,
        )
        panel.fill_between(iterations, means - half, means + half, color=colour, alpha=0.15, lw=0)
        counts |= {int(number) for number in seeds}
    return counts


def draw_window(panel: Axes, rows: list[Row]) -> None:
    """Draw each method's prefix window as a band, means over seeds."""
    for method, own in by_method(rows).items():
        low, high = curve(own, LOW), curve(own, HIGH)
        if len(low):
            _, colour, line, _ = STYLES[method]
            panel.fill_between(low[:, 0], low[:, 1], high[:, 1], color=colour, alpha=0.15, lw=0)
            panel.plot(low[:, 0], low[:, 1], high[:, 0], high[:, 1], color=colour, linestyle=line)


def panel_title(row: Row, varies: bool) -> str:
    """What is special about a panel."""
    parts = [f"{row['set']} problems"] if "set" in row else []
    if varies or "set" not in row:
        share, flawed = (100 * float(value) for value in demonstrations_of(row))
        parts.append(f"{share:g}% of demonstrations, {flawed:g}% of steps flawed")
    return "\n".join(parts)


def grid_of(shape: tuple[int, int]) -> tuple[Figure, np.ndarray]:
    """Panels with equal limits, made for shares of 0 to 1."""
    size = (max(7.0, 4.4 * shape[1]), 3.2 * shape[0] + 0.8)
    figure, panels = plt.subplots(
        *shape, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for panel in panels.flat:
        panel.set_ylim(*LIMITS)
        panel.grid(alpha=0.3)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in panels[-1]:
        panel.set_xlabel("training iteration")
    return figure, panels


def draw_accuracy(rows: list[Row], column: str) -> tuple[Figure, set[int]]:
    """One row of panels per setting of the demonstrations, one column per held-out set."""
    settings = list(dict.fromkeys(map(demonstrations_of, rows)))
    sets = list(dict.fromkeys(row["set"] for row in rows))
    figure, panels = grid_of((len(settings), len(sets)))
    counts: set[int] = set()
    for (i, j), panel in np.ndenumerate(panels):
        own = [r for r in rows if r["set"] == sets[j] and demonstrations_of(r) == settings[i]]
        if own:
            counts |= draw_curves(panel, own, column)
            panel.set_title(panel_title(own[0], len(settings) > 1), fontsize=9)
    for panel in panels[:, 0]:
        panel.set_ylabel(ACCURACY_LABELS[column])
    return figure, counts


def draw_rewards(rows: list[Row], *, window: bool) -> tuple[Figure, set[int]]:
    """One column of panels per setting of the demonstrations: rewards, and below the window."""
    settings = list(dict.fromkeys(map(demonstrations_of, rows)))
    figure, panels = grid_of((1 + window, len(settings)))
    counts: set[int] = set()
    for j, setting in enumerate(settings):
        own = [row for row in rows if demonstrations_of(row) == setting]
        counts |= draw_curves(panels[0, j], own, PLAIN, SOLID)
        counts |= draw_curves(panels[0, j], own, PREFIX, DASHED)
        panels[0, j].set_title(panel_title(own[0], True), fontsize=9)
        if window:
            draw_window(panels[1, j], own)
    panels[0, 0].set_ylabel("mean reward of a rollout\n(plain solid, from a prefix dashed)")
    if window:
        panels[1, 0].set_ylabel("prefix window\n(share of the demonstration)")
    return figure, counts


def finish(figure: Figure, rows: list[Row], title: str, counts: set[int]) -> None:
    """Add the legend of all methods in the figure, and title and caption."""
    are_rewards = "set" not in rows[0]
    handles, names = [], []
    for method, own in by_method(rows).items():
        label, colour, line, marker = STYLES[method]
        has_curve = not are_rewards or any(row[PLAIN] + row[PREFIX] for row in own)
        names.append(label if has_curve else f"{label}: no rollouts")
        look = {"color": colour, "linestyle": SOLID if are_rewards else line, "marker": marker}
        handles.append(plt.Line2D([], [], **look, markersize=4))
    width, height = figure.get_size_inches()
    num_columns = int(width // 2.3)
    figure.set_size_inches(width, height + 0.2 * -(-len(names) // num_columns))
    look = {"fontsize": 8, "handlelength": 3.5, "ncols": num_columns}
    figure.legend(handles, names, loc="outside lower center", **look)
    few, many = min(counts, default=0), max(counts, default=0)
    number = f"{many} seed{'s' * (many != 1)}" if few == many else f"{few} to {many} seeds"
    caption = f"mean of {number}, band: 95% interval (Student's t)" if many > 1 else number
    wrapped = textwrap.fill(title, int(13 * width))
    figure.suptitle(f"{wrapped}\n({caption})", fontsize=10)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line (default: the process's)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("tables", nargs="+", type=Path, help="CSV files of evaluations, or of rewards")
    add("--out", required=True, type=Path, help="path without suffix")
    add("--title", default="Methods on generated word problems", help="the figure's one claim")
    add("--method", action="append", default=[], help="draw this one; repeatable; default: all")
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="select rows")
    add("--metric", choices=ACCURACY_LABELS, default="avg_at_k", help="accuracy to draw")
    add("--window", action="store_true", help="add the prefix window to rewards")
    args = parser.parse_args(arguments)
    if args.out.with_suffix(".csv").resolve() in [path.resolve() for path in args.tables]:
        parser.error(f"--out {args.out}: would write over a table; choose another name")
    return args


def main(arguments: list[str] | None = None) -> None:
    """Read the tables, write CSV and PNG."""
    args = parse_arguments(arguments)
    rows = select(read_rows(args.tables), args.method, args.where)
    if "set" in rows[0]:
        figure, counts = draw_accuracy(rows, args.metric)
    else:
        figure, counts = draw_rewards(rows, window=args.window)
    finish(figure, rows, args.title, counts)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out.with_suffix(".png"), dpi=120)
    plt.close(figure)
    with args.out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
