"""The progress table: one line per iteration; at the end held-out results and how to go on."""

import math
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TextIO

from prefix_rft_rllib import metrics
from prefix_rft_rllib.envs.problems import ProblemSet

LINE_WIDTH = 120
"""Characters per line, at most."""
ROWS_PER_HEADER = 20
MISSING = "-"
"""Shown where a method has no such value: plain RFT no prefix, SFT no rollouts."""

_EVALUATION_KEY = re.compile(r"evaluation/(?P<set>.+)/(?P<name>[^/]+)")
_NUMBER_WIDTH = 7


class _Column(NamedTuple):
    """Two header lines, the width, and the cell of a row."""

    upper: str
    lower: str
    width: int
    cell: Callable[[Mapping[str, float]], str]


def format_number(value: float | None, digits: int) -> str:
    """A number in at most seven characters.

    Args:
        value: Any number, or None.
        digits: Decimal places; fewer, and in the end powers of ten, if the number is long.

    Returns:
        The number, or "-" for None.
    """
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return str(float(value))
    forms = [f"{value:.{places}f}" for places in range(digits, -1, -1)]
    forms += [f"{value:.1e}", f"{value:.0e}"]
    return next(form for form in forms if len(form) <= _NUMBER_WIDTH)


def format_count(value: float | None) -> str:
    """A count in at most six characters: `99999`, `100k`, `1.23M`.

    Args:
        value: A count, or None.

    Returns:
        The count, with three significant digits from 100,000 on; "-" for None.
    """
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return str(float(value))
    if abs(value) < 99_999.5:
        return f"{value:.0f}"
    for unit in ("k", "M", "G", "T"):
        value /= 1000
        if abs(value) < 999.5:
            return f"{value:#.3g}".rstrip(".") + unit
    return f"{value * 1e12:.0e}"


def _number(key: str, digits: int, factor: float = 1.0) -> Callable[[Mapping[str, float]], str]:
    def cell(row: Mapping[str, float]) -> str:
        value = row.get(key)
        return format_number(None if value is None else value * factor, digits)

    return cell


def _count(key: str) -> Callable[[Mapping[str, float]], str]:
    return lambda row: format_count(row.get(key))


def _kept_of_total(row: Mapping[str, float]) -> str:
    kept = row.get(f"{metrics.LEARNER}/{metrics.NUM_KEPT_PREFIX_TOKENS}")
    total = row.get(f"{metrics.LEARNER}/{metrics.NUM_PREFIX_TOKENS}")
    if kept is None and total is None:
        return MISSING
    return f"{format_count(kept)}/{format_count(total)}"


def _columns() -> tuple[_Column, ...]:
    rollouts, learner, time = metrics.ROLLOUTS, metrics.LEARNER, metrics.TIME
    width = _NUMBER_WIDTH
    numbers = (
        ("reward", "plain", _number(f"{rollouts}/{metrics.REWARD_PLAIN_MEAN}", 3)),
        ("reward", "prefix", _number(f"{rollouts}/{metrics.REWARD_PREFIX_MEAN}", 3)),
        ("window", "low", _number(f"{rollouts}/{metrics.PREFIX_WINDOW_LOW}", 3)),
        ("prefix", "mean u", _number(f"{rollouts}/{metrics.PREFIX_FRACTION_MEAN}", 3)),
        ("prefix tokens", "kept/all", _kept_of_total),
        ("entropy", "nats", _number(f"{learner}/{metrics.ENTROPY_RESPONSE}", 4)),
        ("length", "tokens", _number(f"{rollouts}/{metrics.RESPONSE_LENGTH_MEAN}", 1)),
        ("cut off", "%", _number(f"{rollouts}/{metrics.TRUNCATED_FRACTION}", 1, 100.0)),
        ("tokens", "per s", _count(f"{time}/{metrics.TOKENS_PER_SECOND}")),
        ("gen.", "s", _number(f"{time}/{metrics.GENERATION_TIME}", 2)),
        ("verify", "s", _number(f"{time}/{metrics.VERIFICATION_TIME}", 2)),
        ("learn", "s", _number(f"{time}/{metrics.LEARNING_TIME}", 2)),
        ("sync", "s", _number(f"{time}/{metrics.SYNC_TIME}", 2)),
    )
    return tuple(
        _Column(upper, lower, max(width, len(upper)), cell) for upper, lower, cell in numbers
    )


class ProgressTable:
    """Prints a line per iteration, and the header again every 20 of them.

    Plain lines, so that it reads the same in a terminal and in a log file.

    Args:
        stream: Where to write; `sys.stdout` by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._columns = _columns()
        self._num_rows = 0

    def print_row(self, iteration: int, row: Mapping[str, float]) -> None:
        """Print one iteration.

        Args:
            iteration: Its number.
            row: Numbers by flat key, as in `metrics.jsonl`. Missing ones are shown as "-"; results
                on held-out problems follow on lines of their own.
        """
        lines = []
        if self._num_rows % ROWS_PER_HEADER == 0:
            lines.append(self._line("", [column.upper for column in self._columns]))
            lines.append(self._line("iter", [column.lower for column in self._columns]))
        lines.append(self._line(format_count(iteration), [c.cell(row) for c in self._columns]))
        lines += _held_out_lines(row)
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()
        self._num_rows += 1

    def _line(self, first: str, cells: list[str]) -> str:
        padded = [
            cell.rjust(column.width) for column, cell in zip(self._columns, cells, strict=True)
        ]
        return " ".join([first.rjust(6), *padded])


def held_out_results(row: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Results on held-out problems in a flat row.

    Args:
        row: Numbers by flat key.

    Returns:
        By set, in the row's order: numbers by `avg_at_k`, `pass_at_k` and `greedy_accuracy`.
    """
    results: dict[str, dict[str, float]] = {}
    for key, value in row.items():
        match = _EVALUATION_KEY.fullmatch(key)
        if match and match["name"] in _HELD_OUT_TITLES:
            results.setdefault(match["set"], {})[match["name"]] = value
    return results


_HELD_OUT_TITLES = {
    metrics.GREEDY_ACCURACY: "greedy",
    metrics.AVG_AT_K: "avg@k",
    metrics.PASS_AT_K: "pass@k",
}


def _held_out_lines(row: Mapping[str, float]) -> list[str]:
    sets = []
    for name, values in held_out_results(row).items():
        shown = [
            f"{_HELD_OUT_TITLES[key]} {format_number(values.get(key), 3)}"
            for key in (metrics.AVG_AT_K, metrics.GREEDY_ACCURACY)
        ]
        sets.append(f"{name}: {', '.join(shown)}")
    if not sets:
        return []
    # Blanks inside an entry do not break; a name longer than a line does.
    text = "; ".join(entry.replace(" ", "\0") for entry in sets)
    indent = " " * 7
    wrapped = textwrap.wrap(
        f"held-out {text}", LINE_WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  "
    )
    return [line.replace("\0", " ") for line in wrapped]


def final_table(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Results on held-out problems before and after training, as aligned text.

    Args:
        before: Flat row of the evaluation before the first iteration.
        after: Flat row of the evaluation after the last one.

    Returns:
        One line per held-out set under a header; "-" for what a row does not have. Values are mean
        rewards, so shares of problems where a correct answer is worth 1; pass@k is a share.
    """
    old, new = held_out_results(before), held_out_results(after)
    names = list(dict.fromkeys([*old, *new]))
    upper = ["held-out set", *(t for title in _HELD_OUT_TITLES.values() for t in (title, ""))]
    lower = ["", *("before", "after") * len(_HELD_OUT_TITLES)]
    rows = [
        [name]
        + [
            format_number(results.get(name, {}).get(key), 3)
            for key in _HELD_OUT_TITLES
            for results in (old, new)
        ]
        for name in names
    ]
    width = max(map(len, [upper[0], *names]))
    lines = [
        "  ".join([row[0].ljust(width), *(cell.rjust(_NUMBER_WIDTH) for cell in row[1:])]).rstrip()
        for row in (upper, lower, *rows)
    ]
    return "\n".join(lines) + "\n"


def how_to_use(model_dir: str | Path, problem_set: ProblemSet) -> str:
    """Python that loads a trained model and lets it answer a problem.

    Args:
        model_dir: Directory written by `PrefixRFT.save_pretrained`.
        problem_set: The run's problems; the one with the shortest prompt is the example.

    Returns:
        Indented lines of Python, each with a line break. The prompt stands as it was rendered for
        training, so the lines do not depend on chat template and system prompt.
    """
    shortest = min(problem_set.train, key=lambda problem: len(problem.prompt_ids))
    prompt = problem_set.tokenizer.decode(list(shortest.prompt_ids))
    limit = problem_set.settings.max_response_tokens
    lines = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        f"tokenizer = AutoTokenizer.from_pretrained({str(model_dir)!r})",
        f"model = AutoModelForCausalLM.from_pretrained({str(model_dir)!r})",
        f"prompt = tokenizer({prompt!r}, add_special_tokens=False, return_tensors='pt')",
        f"print(tokenizer.decode(model.generate(**prompt, max_new_tokens={limit})[0]))",
    )
    return "".join(f"  {line}\n" for line in lines)
