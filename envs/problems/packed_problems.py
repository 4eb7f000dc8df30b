"""Many problems in a few flat arrays, which processes of one machine can share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from prefix_rft_rllib.envs.problems.problem import Problem
from prefix_rft_rllib.envs.prompts.token_ids import TokenIds
from prefix_rft_rllib.envs.rows.plain_values import Extra, plain

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

_TEXTS = ("problem_id", "domain", "prompt", "answer", "split", "source")
_ENCODING = ("utf-8", "surrogatepass")  # JSON may hold half of a surrogate pair


@dataclass(frozen=True)
class _Rows:
    """Rows of different lengths, one after the other.

    Attributes:
        values: All values. Shape (sum of the lengths,).
        starts: Where each row begins, and the end of the last. Shape (number of rows + 1,), int64.
    """

    values: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[int] | np.ndarray], dtype: DTypeLike) -> _Rows:
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        values = np.empty(starts[-1], dtype)
        for number, row in enumerate(rows):
            values[starts[number] : starts[number + 1]] = row
        return cls(values, starts)

    def __getitem__(self, number: int) -> np.ndarray:
        return self.values[self.starts[number] : self.starts[number + 1]]


class _Problems(Sequence[Problem]):
    """Problems that are made when they are asked for; equal to a sequence of equal problems."""

    def _make(self, number: int) -> Problem:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Problem: ...

    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...

    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self._make(number) for number in numbers]
        return self._make(numbers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class PackedProblems(_Problems):
    """Problems in flat arrays; a `Problem` is made each time one is asked for.

    Token ids take four bytes each (a tuple of Python ints about 36), texts are UTF-8, other columns
    are bytes that a problem decodes when they are asked for. Pickled with
    protocol 5 the arrays are buffers of their own: whoever hands them out without copying (an
    object store) gives read-only views, and nothing here writes. The token ids of a problem are
    such views.

    Args:
        problems: The problems, in order.
    """

    def __init__(self, problems: Iterable[Problem]):
        token_rows: list[Sequence[int]] = []
        texts: list[np.ndarray] = []
        data: list[np.ndarray] = []
        numbers: list[tuple[int, ...]] = []
        for problem in problems:
            token_rows += [problem.prompt_ids, *problem.demonstration_ids]
            fields = [getattr(problem, name) for name in _TEXTS]
            listed = (problem.demonstration_texts, problem.demonstration_sources)
            for text in (*fields, *listed[0], *listed[1]):
                texts.append(np.frombuffer(text.encode(*_ENCODING), np.uint8))
            data += [_packed(problem.extra), _packed(_listed(problem.messages))]
            # Three counts: a problem made by hand may have demonstrations without texts.
            counts = (len(problem.demonstration_ids), len(listed[0]), len(listed[1]))
            numbers.append((problem.num_long_demonstrations, *counts, problem.source_number))
        self._tokens = _Rows.of(token_rows, np.int32)
        self._texts = _Rows.of(texts, np.uint8)
        self._data = _Rows.of(data, np.uint8)  # `extra` and `messages` of every problem
        # Columns: num_long_demonstrations, demonstrations, their texts, their sources,
        # source_number.
        self._numbers = np.array(numbers, np.int32).reshape(-1, 5)
        self._first_row = _starts(1 + self._numbers[:, 1])
        self._first_text = _starts(len(_TEXTS) + self._numbers[:, 2] + self._numbers[:, 3])

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays."""
        kinds = (self._tokens, self._texts, self._data)
        rows = [part for packed in kinds for part in vars(packed).values()]
        return sum(a.nbytes for a in (*rows, self._numbers, self._first_row, self._first_text))

    def __len__(self) -> int:
        return len(self._numbers)

    def _make(self, number: int) -> Problem:
        num_long, num_demonstrations, num_texts, num_sources, source = self._numbers[
            number
        ].tolist()
        extra, messages = (self._data[2 * number + i].tobytes() for i in range(2))
        row, first = int(self._first_row[number]), int(self._first_text[number])
        tokens = [TokenIds(self._tokens[row + i]) for i in range(1 + num_demonstrations)]
        texts = [self._text(first + i) for i in range(len(_TEXTS) + num_texts + num_sources)]
        listed = texts[len(_TEXTS) :]
        return Problem(
            **dict(zip(_TEXTS, texts, strict=False)),
            prompt_ids=tokens[0],
            demonstration_ids=tuple(tokens[1:]),
            num_long_demonstrations=num_long,
            demonstration_texts=tuple(listed[:num_texts]),
            demonstration_sources=tuple(listed[num_texts:]),
            extra=Extra.of_bytes(extra),
            messages=tuple(Extra.of_bytes(messages).get("messages", ())),
            source_number=source,
        )

    def texts(self, name: str) -> list[str]:
        """One text of every problem.

        Args:
            name: "problem_id", "domain", "prompt", "answer", "split" or "source".

        Returns:
            The texts, in order.
        """
        place = _TEXTS.index(name)
        return [self._text(int(first) + place) for first in self._first_text[:-1]]

    def num_demonstrations(self) -> np.ndarray:
        """The number of demonstrations of every problem. Shape (number of problems,), int32."""
        return self._numbers[:, 1]

    def where(self, mask: np.ndarray) -> SelectedProblems:
        """The problems at which a mask is true, in order.

        Args:
            mask: Shape (number of problems,), bool.

        Returns:
            A view: nothing is copied.
        """
        return SelectedProblems(self, np.flatnonzero(mask))

    def _text(self, number: int) -> str:
        return str(self._texts[number].data, *_ENCODING)


class SelectedProblems(_Problems):
    """Some of the packed problems, by their numbers.

    Args:
        problems: All problems.
        numbers: The positions of those selected. Shape (N,), int.
    """

    def __init__(self, problems: PackedProblems, numbers: np.ndarray):
        self._problems = problems
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def _make(self, number: int) -> Problem:
        return self._problems[int(self._numbers[number])]


def _packed(values: Mapping[str, Any]) -> np.ndarray:
    extra = values if isinstance(values, Extra) else Extra(plain(values))
    return np.frombuffer(extra.packed, np.uint8)


def _listed(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"messages": [dict(message) for message in messages]} if messages else {}


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
