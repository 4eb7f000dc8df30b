r"""The math verifier: find the answer in a response, compare it with the gold answer.

Comparing runs in worker processes that are killed at the time limit (`worker_pool.py`). How
answers are read, and which answers count as equal, is written down with
examples in `docs/math_verifier.md`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, TypeVar

from prefix_rft_rllib.basics.old_names import renamed
from prefix_rft_rllib.basics.ranges import one_of, real, whole
from prefix_rft_rllib.envs.verifiers.math_answers import (
    MAX_ANSWER_CHARS,
    boxed_answer,
    has_content,
    is_plain_integer,
)
from prefix_rft_rllib.envs.verifiers.math_golds import is_readable
from prefix_rft_rllib.envs.verifiers.shared_verifier import SharedVerifier
from prefix_rft_rllib.envs.verifiers.verdict import Verdict
from prefix_rft_rllib.envs.workers.worker_pool import PoolWork, WorkerPool

Result = TypeVar("Result")

_EXTRACTIONS = ("boxed", "last")
_MEMORY = whole(256).advising("The libraries alone need more than 100 MiB.")
_MAX_CHARS_HERE = 500
"""Longer answers are read in a worker, under the time limit."""
_WORK = "prefix_rft_rllib.envs.verifiers.math_worker"


def default_num_workers() -> int:
    """Return how many comparisons run at a time if nobody says: at most 4, see `MathVerifier`."""
    return min(4, os.cpu_count() or 1)


class MathVerifier(SharedVerifier):
    r"""Grades math responses against gold answers.

    All methods may be called from any thread and inside Ray actors. The constructor
    returns when the worker processes are ready, about a second; use it as a context
    manager or call `close` to end them early (they also end with the process).

    Args:
        extract: Where the answer stands. "boxed": the content of the response's last
            `\boxed{}`, read as a whole. "last": the last answer that the response
            states.
        timeout_s: Seconds one comparison may take, above 0. The verdict is `TIMEOUT`
            then; waiting for a free worker does not count.
        num_workers: Comparisons that may run at the same time, at least 1. Default: the
            number of CPU cores, at most 4.
        memory_limit_mb: Address space of one worker in MiB, at least 256. Reaching it
            gives `ERROR`.

    Raises:
        ValueError: If an argument is outside its range.
        RuntimeError: If the worker process cannot be started.
    """

    def __init__(
        self,
        *,
        extract: Literal["boxed", "last"] = "boxed",
        timeout_s: float = 5.0,
        num_workers: int | None = None,
        memory_limit_mb: int = 1024,
    ) -> None:
        one_of(_EXTRACTIONS).check("extract", extract)
        real(above=0).check("timeout_s", timeout_s)
        if num_workers is None:
            num_workers = default_num_workers()
        whole(1).check("num_workers", num_workers)
        _MEMORY.check("memory_limit_mb", memory_limit_mb)
        self.extract = extract
        self.timeout_s = float(timeout_s)
        self.num_workers = num_workers
        work = PoolWork(module=_WORK, settings={"memory_limit_mb": memory_limit_mb})
        self._pool = WorkerPool(num_workers, work)

    def verify(self, response: str, answer: str) -> Verdict:
        """Grade one response.

        Args:
            response: The whole response, decoded.
            answer: The gold answer: bare LaTeX, `$...$` or a plain number.

        Returns:
            The verdict. `ERROR` if the gold answer itself is empty or unreadable (see
            `check_answer`), since that is no fault of the response.

        Raises:
            ValueError: If an argument is not a string.
        """
        _require_text("response", response)
        _require_text("answer", answer)
        if not has_content(answer):
            return Verdict.ERROR
        if self.extract == "last":
            if not has_content(response):
                return Verdict.UNPARSEABLE
            return self._run("compare_last", response, answer)
        candidate = boxed_answer(response)
        if candidate is None or len(candidate) > MAX_ANSWER_CHARS:
            return Verdict.UNPARSEABLE
        return self._quick_verdict(candidate, answer) or self._run("compare", candidate, answer)

    def verify_batch(
        self, responses: Sequence[str], answers: Sequence[str], progress: bool = False
    ) -> list[Verdict]:
        """Grade many responses, `num_workers` at a time.

        Args:
            responses: The responses.
            answers: The gold answers, one for each response.
            progress: Show a progress bar on stderr.

        Returns:
            One verdict for each response, in order.

        Raises:
            ValueError: If the lengths differ or an item is not a string.
        """
        if len(responses) != len(answers):
            raise ValueError(
                f"`responses` ({len(responses)}) and `answers` ({len(answers)}) must have the "
                "same length: one gold answer for each response."
            )
        with ThreadPoolExecutor(self.num_workers) as executor:
            verdicts: Iterable[Verdict] = executor.map(self.verify, responses, answers)
            return list(with_progress(verdicts, len(responses), progress))

    def compare(self, gold: str, candidate: str) -> Verdict:
        """Compare two answers; words may stand around them.

        Unlike `verify`, which takes a box's content as nothing but the answer, this reads
        "so the answer is 10 m" as 10.

        Args:
            gold: The gold answer.
            candidate: The answer to be graded.

        Returns:
            The verdict, as in `verify`.

        Raises:
            ValueError: If an argument is not a string.
        """
        _require_text("gold", gold)
        _require_text("candidate", candidate)
        if not has_content(gold):
            return Verdict.ERROR
        if not has_content(candidate):
            return Verdict.UNPARSEABLE
        return self._quick_verdict(candidate, gold) or self._run("compare_prose", candidate, gold)

    def check_answer(self, answer: str) -> bool:
        """Tell whether a gold answer can be graded against.

        Args:
            answer: The gold answer.

        Returns:
            True if it can be read as a formula, as words or as a sentence with a formula.

        Raises:
            ValueError: If `answer` is not a string.
        """
        _require_text("answer", answer)
        if not has_content(answer) or len(answer) > MAX_ANSWER_CHARS:
            return False
        if is_plain_integer(answer):
            return True
        result = self._pool.run({"operation": "check", "gold": answer}, self.timeout_s)
        return bool(result.value.get("readable", False))

    def close(self) -> None:
        """End the worker processes. Using the verifier afterwards is an error."""
        self._pool.close()

    def __enter__(self) -> MathVerifier:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _quick_verdict(self, candidate: str, answer: str) -> Verdict | None:
        """Decide without a worker what a worker would decide the same way."""
        if is_plain_integer(candidate) and is_plain_integer(answer):
            return Verdict.CORRECT if candidate == answer else Verdict.WRONG
        if candidate == answer.strip() and len(answer) <= _MAX_CHARS_HERE:
            return Verdict.CORRECT if is_readable(answer) else Verdict.ERROR
        return None

    def _run(self, operation: str, candidate: str, gold: str) -> Verdict:
        job = {"operation": operation, "candidate": candidate, "gold": gold}
        result = self._pool.run(job, self.timeout_s)
        if result.status == "done":
            return Verdict(result.value["verdict"])
        return Verdict.TIMEOUT if result.status == "timeout" else Verdict.ERROR


def with_progress(items: Iterable[Result], total: int, progress: bool) -> Iterator[Result]:
    """Yield the items, with a bar on stderr if `progress`."""
    if not progress:
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, total=total, unit="verdict", smoothing=0.05)


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ValueError(
            f"`{name}` must be a string, got {type(value).__name__} {value!r:.80}. "
            "Convert numbers with str() first."
        )


__getattr__ = partial(renamed, __name__)
