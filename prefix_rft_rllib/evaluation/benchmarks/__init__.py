"""Recipes of benchmarks: one file each, whose docstring gives dataset, protocol and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefix_rft_rllib.envs.rows.data_sources import DataSource
from prefix_rft_rllib.evaluation.benchmarks import (
    aime,
    amc,
    arc_challenge,
    gpqa_diamond,
    gsm8k,
    humaneval,
    math500,
    mbpp,
    minerva,
    mmlu_pro,
    olympiadbench,
    svamp,
    word_problems,
)
from prefix_rft_rllib.evaluation.benchmarks.benchmark import Benchmark, Row

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        *(aime.AIME_2024, aime.AIME_2025, amc.AMC, math500.MATH_500, minerva.MINERVA),
        *(olympiadbench.OLYMPIADBENCH, gsm8k.GSM8K, svamp.SVAMP, arc_challenge.ARC_CHALLENGE),
        *(gpqa_diamond.GPQA_DIAMOND, mmlu_pro.MMLU_PRO, humaneval.HUMANEVAL),
        *(humaneval.HUMANEVAL_PLUS, mbpp.MBPP, mbpp.MBPP_PLUS, word_problems.WORD_PROBLEMS),
    )
}
"""All recipes by name."""
SHORT_NAMES = ("toy_arithmetic", "toy_code")
"""Generated problems that `env_config['data']` knows by a word."""


@dataclass(frozen=True)
class ChosenBenchmark:
    """A benchmark as a command line names it.

    Attributes:
        name: For files and tables.
        recipe: How it is asked.
        source: Where its problems are; None: where the recipe says.
    """

    name: str
    recipe: Benchmark
    source: str | None = None


def find_benchmark(text: str) -> ChosenBenchmark:
    """Read what names a benchmark.

    Args:
        text: The name of a recipe; "NAME=SOURCE", a recipe with a local file or another name of the
            hub; or a source alone: problems as `env_config['data']` reads them, asked as they are.

    Returns:
        The benchmark.

    Raises:
        ValueError: If it is none of these; known names are listed.
    """
    if text in BENCHMARKS:
        return ChosenBenchmark(text, BENCHMARKS[text])
    name, is_given, source = text.partition("=")
    if is_given and source and name in BENCHMARKS:
        return ChosenBenchmark(name, BENCHMARKS[name], source)
    is_source = Path(text).exists() or text in SHORT_NAMES or any(sign in text for sign in "/:.")
    if not (text and is_source):
        raise ValueError(
            f"Unknown benchmark {text!r}. Known: {', '.join(BENCHMARKS)}. Give one of these, "
            "NAME=FILE for one with problems of your own, or a file of problems."
        )
    return ChosenBenchmark(
        Path(text).name.split(".")[0].replace(":", "_"),
        Benchmark(name=text, source=text, verifier="domain"),
    )


def converted_rows(benchmark: str, data: str, data_config: Mapping[str, Any]) -> Iterator[Row]:
    """Rows of a recipe's source in this project's form: a source of `env_config['data']`.

    Args:
        benchmark: Name of a recipe that converts rows.
        data: A file or a name of the hub.
        data_config: Arguments of `datasets.load_dataset`.

    Yields:
        Rows.
    """
    yield from BENCHMARKS[benchmark].converted(DataSource(data, data_config))
