"""What an evaluation shows at its end: one table for people, one JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefix_rft_rllib.basics.text import without_controls
from prefix_rft_rllib.basics.whole_files import written_in_one_step

_UNDECIDED = ("TIMEOUT", "ERROR")


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write results as JSON, whole or not at all.

    Args:
        path: The file; replaced.
        results: Plain data. Nothing in it depends on when or how often a run was interrupted.
    """
    with written_in_one_step(path) as file:
        file.write(f"{json.dumps(results, indent=2)}\n".encode())


def table(results: Mapping[str, Any]) -> str:
    """Write results as a table for a terminal.

    Args:
        results: As `write_results` takes them: `model`, and `benchmarks` by name.

    Returns:
        Lines with metric, mean, 95% interval and, with several seeds, mean and deviation over them.
    """
    lines = [f"model {results['model']}"]
    for name, found in results["benchmarks"].items():
        lines += ["", *_benchmark_lines(name, found)]
    return without_controls("\n".join(lines))


def _benchmark_lines(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{name}: {found['num_problems']} problems, {found['num_samples']} sampled attempts at "
        f"each for {len(found['seeds'])} seeds"
    )
    seeds = "over seeds" if found["over_seeds"] else ""
    yield f"  {'metric':<28}{'mean':>10}  {'95% interval':<22}{seeds}"
    for metric, estimate in found["overall"].items():
        yield f"  {metric:<28}{_estimate(estimate)}{_spread(found['over_seeds'].get(metric))}"
    for field, values in found["breakdown"].items():
        if len(values) < 2:
            continue
        for value, metrics in values.items():
            shown = {m: e for m, e in metrics.items() if m.startswith(("avg@", "greedy_pass"))}
            count = next(iter(metrics.values()))["num_problems"]
            yield f"  {field} = {value}: {count} problems"
            yield from (f"    {metric:<26}{_estimate(e)}" for metric, e in shown.items())
    undecided = {v: n for v, n in found["verdicts"].items() if v in _UNDECIDED}
    if undecided:
        yield f"  the verifier did not decide: {undecided} (counted as not solved)"
    if found["num_ungradeable_answers"]:
        yield f"  gold answers that the verifier refuses: {found['num_ungradeable_answers']}"
    yield from _comparison_lines(found.get("comparison"))


def _comparison_lines(comparison: Mapping[str, Any] | None) -> Iterator[str]:
    if comparison is None:
        return
    yield f"  compared with {comparison['other']}, problem by problem:"
    for kind in ("greedy", "sampled"):
        if kind in comparison:
            test = comparison[kind]
            yield (
                f"  {'difference, ' + kind:<28}{_estimate(test['difference'])}p = "
                f"{test['p_value']:.4g}, better at {test['num_better']}, worse at "
                f"{test['num_worse']}"
            )
    for text in comparison["settings_that_differ"]:
        yield f"  asked differently: {text}"


def _estimate(estimate: Mapping[str, float]) -> str:
    digits = 1 if max(abs(estimate["mean"]), abs(estimate["high"])) > 1.5 else 4
    mean, low, high = (f"{estimate[key]:.{digits}f}" for key in ("mean", "low", "high"))
    interval = f"{low} to {high}"
    return f"{mean:>10}  {interval:<22}"


def _spread(spread: Mapping[str, float] | None) -> str:
    if spread is None:
        return ""
    digits = 1 if spread["mean"] > 1.5 else 4
    return f"{spread['mean']:.{digits}f} +- {spread['std']:.{digits}f}"
