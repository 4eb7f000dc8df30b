"""What a recipe of a benchmark says: where its problems are, how they are asked and graded."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prefix_rft_rllib.envs.rows.data_sources import DataSource
from prefix_rft_rllib.envs.rows.problem_rows import read_rows

Row = Mapping[str, Any]

BOXED = "{prompt}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
"""Prompt of problems with an answer in mathematics."""
LETTER = (
    "{prompt}\n\nPlease reason step by step, and put the letter of the right option within "
    "\\boxed{}."
)
"""Prompt of problems with options."""
AS_IT_IS = "{prompt}"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Problems and the protocol by which a model is asked.

    Attributes:
        name: What the command calls it.
        source: Where its problems are, unless a local file is given: a name of the Hugging Face
            hub, a file, or the import path of a function.
        source_config: Arguments of `datasets.load_dataset` or of the function.
        verifier: "math", "choice", "code", or "domain" (of these what each problem's domain says).
        verifier_config: Its settings.
        prompt_template: Text around the problem.
        num_samples: Sampled attempts at each problem, beside the greedy one.
        convert: Turns a row of `source` into one with `prompt`, `domain` and `answer` or `tests`;
            None where rows have these already. Rows that have them are left as they are.
    """

    name: str
    source: str
    source_config: Mapping[str, Any] = field(default_factory=dict)
    verifier: str
    verifier_config: Mapping[str, Any] = field(default_factory=dict)
    prompt_template: str = AS_IT_IS
    num_samples: int = 1
    convert: Callable[[Row], Row] | None = None

    def env_config(self, source: str | None = None) -> dict[str, Any]:
        """What of an `env_config` the benchmark decides.

        Args:
            source: A local file, or a name of the hub, in the place of its own source.

        Returns:
            Data, verifier and prompt. The first row tells whether rows must be converted.

        Raises:
            ValueError: If the source cannot be read.
        """
        where = DataSource(self.source, self.source_config)
        if source is not None:
            is_named = source == self.source
            where = DataSource(source, self.source_config if is_named else {})
        data = {"data": where.data, "data_config": dict(where.data_config)}
        first = () if self.convert is None else itertools.islice(read_rows(where), 1)
        if not all(is_plain(row) for _, row in first):
            arguments = {"benchmark": self.name, **data}
            data = {"data": f"{__package__}:converted_rows", "data_config": arguments}
        return {
            **data,
            "verifier": self.verifier,
            "verifier_config": dict(self.verifier_config),
            "prompt_template": self.prompt_template,
        }

    def converted(self, where: DataSource) -> Iterator[Row]:
        """Rows of a source in this project's form.

        Args:
            where: The source.

        Yields:
            Rows with `prompt`, `domain` and `answer` or `tests`, and their other columns.

        Raises:
            ValueError: If a row lacks a column; names the row.
        """
        assert self.convert is not None, "rows without conversion are read as they are"
        for place, row in read_rows(where):
            try:
                yield row if is_plain(row) else self.convert(row)
            except (KeyError, IndexError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{place}: no row of {self.name!r} as {self.source!r} has them "
                    f"({type(error).__name__}: {error}); its columns: {', '.join(map(str, row))}. "
                    "Give rows with `prompt` and `answer` or `tests` (docs/problems.md)."
                ) from error


def is_plain(row: Row) -> bool:
    """Whether a row has this project's form: `prompt`, and `answer` or `tests`."""
    return "prompt" in row and ("answer" in row or "tests" in row)


def without(row: Row, *columns: str) -> dict[str, Any]:
    """The other columns of a row, for breakdowns."""
    return {name: value for name, value in row.items() if name not in columns}


def with_options(question: str, options: list[str]) -> str:
    """A question with its options, labelled from A on, one a line."""
    labelled = [f"{chr(ord('A') + i)}. {text}" for i, text in enumerate(options)]
    return "\n".join([question.strip(), "", *labelled])
