"""Rows of data merged into problems, before any token exists."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from prefix_rft_rllib.basics.text import short_repr
from prefix_rft_rllib.envs.rows.data_sources import DataSource, source_names
from prefix_rft_rllib.envs.rows.problem_rows import read_rows
from prefix_rft_rllib.envs.rows.row_fields import RawProblem, RowReader
from prefix_rft_rllib.envs.settings import EnvSettings

logger = logging.getLogger(__name__)


def read_problems(
    sources: Sequence[DataSource], settings: EnvSettings, counts: Counter[str]
) -> list[RawProblem]:
    """Read sources and merge rows of the same problem, in file order.

    Rows belong together if prompt and answer are equal, or if they come from one source and share
    `problem_id` (or `id`); the first row's id and other columns stay. An id that another source
    has used for another problem gets the source's name in front.

    Args:
        sources: Where to read.
        settings: Field names and filters.
        counts: Counts of rows, merged rows and drops are added to it.

    Returns:
        The problems, at least one.

    Raises:
        ValueError: If a row is bad or contradicts another one (file, line and field are named),
            or if nothing is left.
    """
    merged = _Merged(counts)
    for source, name in zip(sources, source_names(sources), strict=True):
        reader = RowReader(settings.of_source(source), counts)
        merged.begin_source(name)
        for place, row in read_rows(source):
            counts["rows"] += 1
            problem = reader.read(row, place)
            if problem is not None:
                problem.source_number = settings.sources.index(source)
                merged.add(problem)
        for form, num_rows in reader.forms.items():
            logger.info("%s: %d rows read %s.", source.data, num_rows, form)
    if not merged.problems:
        names = ", ".join(repr(source.data) for source in sources)
        raise ValueError(f"No problem was found in {names}: {counts['rows']} rows were read.")
    return merged.problems


class _Merged:
    """Problems by what makes two rows one problem.

    Args:
        counts: Merged rows and renamed problems are added to it.
    """

    def __init__(self, counts: Counter[str]):
        self.problems: list[RawProblem] = []
        self._counts = counts
        self._source_name = ""
        self._in_source: dict[str, RawProblem] = {}
        self._by_text: dict[tuple[str, str], RawProblem] = {}
        self._ids: set[str] = set()

    def begin_source(self, name: str) -> None:
        """From now on rows come from another source: their ids are ids of that source."""
        self._source_name = name
        self._in_source = {}

    def add(self, problem: RawProblem) -> None:
        """Take a row's problem in: as a new one, or as a part of one that is known."""
        given_id, text = problem.problem_id, (_prompt_text(problem), problem.answer)
        known = self._in_source.get(given_id) or self._by_text.get(text)
        if known is None:
            self._name(problem)
            self.problems.append(problem)
            known = problem
        else:
            _check_equal(known, problem)
            self._counts["merged_rows"] += 1
            if known.extra.packed != problem.extra.packed:
                self._counts["merged_rows_with_other_columns"] += 1
            known.add_demonstrations(problem)
        self._in_source.setdefault(given_id, known)
        self._by_text.setdefault(text, known)

    def _name(self, problem: RawProblem) -> None:
        """Make the id of a new problem one that no other problem has."""
        if problem.problem_id in self._ids:
            self._counts["ids_with_source_name"] += 1
        while problem.problem_id in self._ids:
            problem.problem_id = f"{self._source_name}/{problem.problem_id}"
        self._ids.add(problem.problem_id)


def _prompt_text(problem: RawProblem) -> str:
    return repr(problem.messages) if problem.messages else problem.prompt


def _check_equal(first: RawProblem, second: RawProblem) -> None:
    for name in ("answer", "prompt", "messages"):
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours != theirs:
            field_name = "prompt" if name == "messages" else name
            raise ValueError(
                f"{second.source}: field {field_name!r} is {short_repr(theirs)}, but "
                f"{first.source} has {short_repr(ours)} for the same problem id "
                f"{second.problem_id!r}. Rows of one problem must agree; give different problems "
                "different ids."
            )
