"""Draws the ratios of the benchmarks' CSV files as one bar chart.

python benchmarks/draw.py    # benchmarks/results/*.csv -> benchmarks/results/ratios.png
"""

import argparse
import csv
import statistics
from pathlib import Path

from matplotlib import pyplot
from sampling_ahead import ratio

RESULTS = Path(__file__).parent / "results"
COLORS = {"met": "#0072B2", "not met": "#D55E00", "no aim": "#999999"}
"""Safe for colour-blind readers."""

Bar = tuple[str, float, float | None]
"""Label, ratio, and the aim: at most this."""


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file; none if it is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def trl_bars(rows: list[dict[str, str]]) -> list[Bar]:
    """Iteration time over TRL's fastest; the aim is for workloads with weight on every row."""
    seconds: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        of_case = seconds.setdefault((row["model"], row["workload"]), {})
        of_case.setdefault(row["contender"], []).append(float(row["iteration_s"]))
    bars: list[Bar] = []
    for (model, workload), contenders in seconds.items():
        trl = [values for name, values in contenders.items() if name.startswith("trl_")]
        fastest = min(map(statistics.median, trl))
        for contender, values in contenders.items():
            if contender.startswith("trl_"):
                continue
            engine = contender.removeprefix("ours_")
            label = f"iteration / TRL's: {model} model, {workload.replace('_', ' ')}, {engine}"
            has_aim = workload == "every_row" and engine == "transformers"
            bars.append((label, statistics.median(values) / fastest, 0.85 if has_aim else None))
    return bars


def learner_bars(rows: list[dict[str, str]]) -> list[Bar]:
    """Time of an update over that of the plain loop."""
    seconds = values_by(rows, "model", "contender", "seconds")
    return [
        (f"update / plain loop: {model}", of["update"] / of["loop"], 1 / 0.85)
        for model, of in seconds.items()
    ]


def rollout_bars(rows: list[dict[str, str]]) -> list[Bar]:
    """Time of an env runner's `sample` over that of its bare engine."""
    rates = values_by(rows, "model", "contender", "tokens_per_s")
    return [
        (
            f"sample / {rows[0]['engine']} engine: {model} model",
            of["engine"] / of["sample"],
            1 / 0.9,
        )
        for model, of in rates.items()
    ]


def values_by(
    rows: list[dict[str, str]], group: str, contender: str, value: str
) -> dict[str, dict[str, float]]:
    """Medians of a column by two others."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        of_group = values.setdefault(row[group], {})
        of_group.setdefault(row[contender], []).append(float(row[value]))
    return {
        name: {c: statistics.median(v) for c, v in of_group.items()}
        for name, of_group in values.items()
    }


def other_bars(results: Path) -> list[Bar]:
    """The sync over a memory copy, and the iteration over the longer of its two halves."""
    bars: list[Bar] = []
    for row in read(results / "weight_sync.csv"):
        if row["what"] == "sync_over_copy":
            bars.append(("weight sync to 2 runners / one memory copy", float(row["value"]), None))
    rows = read(results / "sampling_ahead.csv")
    by_lag = {lag: [r for r in rows if r["max_weight_staleness"] == lag] for lag in ("0", "1")}
    if rows:
        label = "iteration sampling ahead / max(sampling, learning)"
        bars.append((label, ratio(by_lag["0"], by_lag["1"]), 1.2))
    return bars


def draw(bars: list[Bar], path: Path) -> None:
    """Write the chart."""
    figure, axes = pyplot.subplots(figsize=(9, 0.45 * len(bars) + 1.2), layout="constrained")
    for position, (_, value, aim) in enumerate(reversed(bars)):
        state = "no aim" if aim is None else "met" if value <= aim else "not met"
        axes.barh(position, value, color=COLORS[state], height=0.6)
        axes.text(max(value, aim or 0.0), position, f" {value:.2f}", va="center")
        if aim is not None:
            axes.plot([aim, aim], [position - 0.42, position + 0.42], color="black", linewidth=2)
    axes.set_yticks(range(len(bars)), [label for label, _, _ in reversed(bars)])
    axes.set_xlim(0, 1.15 * max(value for _, value, _ in bars))
    axes.set_xlabel("ratio of medians (black line: at most this)")
    axes.set_title("Times as ratios to contenders of the same run")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=RESULTS / "ratios.png")
    args = parser.parse_args()
    bars = trl_bars(read(args.results / "trl_comparison.csv"))
    bars += learner_bars(read(args.results / "learner_update.csv"))
    for engine in ("transformers", "vllm"):
        bars += rollout_bars(read(args.results / f"rollouts_{engine}.csv"))
    bars += other_bars(args.results)
    if not bars:
        raise SystemExit(f"No CSV file to draw in {args.results}: run the benchmarks first.")
    draw(bars, args.out)


if __name__ == "__main__":
    main()
