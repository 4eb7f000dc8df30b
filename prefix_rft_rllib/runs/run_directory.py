"""The run directory: settings, metrics, TensorBoard events and rollouts of one run.

`docs/run_directory.md` describes every file and field.
"""

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefix_rft_rllib.basics.numbered_files import numbered
from prefix_rft_rllib.basics.whole_files import written_in_one_step
from prefix_rft_rllib.runs.checkpoints import checkpoints_of
from prefix_rft_rllib.runs.older_results import (
    CONFIG_FILE,
    METRICS_FILE,
    MINIBATCHES_FILE,
    ROLLOUTS_FOLDER,
    move_aside,
    results_of,
)
from prefix_rft_rllib.runs.one_writer import OneWriter
from prefix_rft_rllib.runs.rollout_records import (
    Decoder,
    RolloutRecord,
    json_value,
    number_from_json,
    read_rollouts,
    write_rollouts_file,
)
from prefix_rft_rllib.runs.tensorboard_events import TensorBoardEvents, remove_events_after

__all__ = [
    "RolloutRecord",
    "RunDirectory",
    "read_metrics",
    "read_minibatches",
    "read_rollouts",
]

logger = logging.getLogger(__name__)

ITERATION = "training_iteration"
"""Key of the iteration in every row: RLlib's number, from 1."""


class RunDirectory:
    """Writes what a run shows and keeps.

    A run that was restored at an earlier iteration goes on in its directory as if the later
    iterations had not been: before the first row, file or event is written, those of iterations
    after `iteration` are removed, and so is a line that a killed process left half-written;
    later checkpoints are moved aside. A new run moves all that an older one has left aside.
    Until then nothing is touched where there are results, so building an algorithm that is then
    restored loses nothing.

    Args:
        path: The directory; created if missing. One process at a time may write into it.
        iteration: Last finished iteration of the restored run that is about to write; None for a
            new run.
    """

    def __init__(self, path: str | os.PathLike[str], *, iteration: int | None = None) -> None:
        self._path = Path(path)
        self._is_new = iteration is None
        self._iteration = iteration or 0
        self._last_minibatches = self._iteration
        self._events: TensorBoardEvents | None = None
        self._config: bytes | None = None
        self._lock: OneWriter | None = None
        self._path.mkdir(parents=True, exist_ok=True)

    @property
    def path(self) -> Path:
        """The directory."""
        return self._path

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Write `config.json` anew, where there are results already with the first new one.

        Args:
            settings: Settings by name. What JSON cannot hold is written as its `repr`.
        """
        text = json.dumps(json_value(dict(settings)), indent=2, allow_nan=False)
        self._config = f"{text}\n".encode("ascii")
        if not results_of(self._path):
            self._write_config()

    def write_metrics(self, iteration: int, row: Mapping[str, float]) -> None:
        """Append one iteration's metrics to `metrics.jsonl` and to the TensorBoard events.

        Args:
            iteration: The finished iteration, above all that were written before.
            row: Numbers by flat key, as `metrics.flatten` gives them. NaN becomes null.

        Raises:
            ValueError: If the iteration was already written.
        """
        if iteration <= self._iteration:
            raise ValueError(
                f"`iteration` ({iteration}) must be above {self._iteration}, the last one in "
                f"{self._path}: a row is written once. After a restore, create the RunDirectory "
                "anew with the restored iteration."
            )
        events = self._open()
        numbers = {key: value for key, value in row.items() if key != ITERATION}
        _append(self._path / METRICS_FILE, [{ITERATION: iteration, **numbers}])
        events.write_scalars(iteration, numbers)
        self._iteration = iteration

    def write_minibatches(self, iteration: int, records: Sequence[Mapping[str, Any]]) -> None:
        """Append the optimizer steps of one iteration to `minibatches.jsonl`.

        Args:
            iteration: The iteration.
            records: One mapping of plain data per optimizer step, in their order.
        """
        self._open()
        path = self._path / MINIBATCHES_FILE
        if iteration <= self._last_minibatches:
            # The iteration failed after this point and is run again.
            _trim(path, iteration - 1)
        rows = [{ITERATION: iteration, **record} for record in records]
        _append(path, rows)
        self._last_minibatches = iteration

    def write_rollouts(
        self,
        iteration: int,
        records: Sequence[RolloutRecord],
        tokenizer: Decoder | None = None,
    ) -> None:
        """Write `rollouts/iteration_<number>.jsonl.gz` and the sample rollouts of TensorBoard.

        Args:
            iteration: The iteration.
            records: Its recorded rollouts. Without any, no file is written.
            tokenizer: Adds the texts; without it there are token ids only, and no samples.
        """
        events = self._open()
        if not records:
            return
        if tokenizer is not None:
            records = [record.with_texts(tokenizer) for record in records]
            events.write_samples(iteration, records)
        folder = self._path / ROLLOUTS_FOLDER
        folder.mkdir(exist_ok=True)
        write_rollouts_file(folder / f"iteration_{iteration:06d}.jsonl.gz", records)

    def flush(self) -> None:
        """See that all rows are on the disk, and nothing of an older run in their place."""
        self._open()
        for name in (METRICS_FILE, MINIBATCHES_FILE):
            if (self._path / name).exists():
                with open(self._path / name, "rb") as file:
                    os.fsync(file.fileno())

    def lock(self) -> None:
        """Let no other process write here, until `close`; the first write does it too.

        Raises:
            ValueError: If another process writes here.
        """
        if self._lock is None:
            self._lock = OneWriter(self._path)

    def close(self) -> None:
        """Close the event file, and let others write. Writing again opens a new one."""
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _open(self) -> TensorBoardEvents:
        """The event file, opened after what is rolled back was removed."""
        if self._events is None:
            self.lock()
            if self._is_new:
                self._move_older_run()
            else:
                self._roll_back()
            self._is_new = False
            self._write_config()
            self._events = TensorBoardEvents(self._path)
        return self._events

    def _write_config(self) -> None:
        if self._config is not None:
            _replace(self._path / CONFIG_FILE, [self._config])

    def _move_older_run(self) -> None:
        """Move what an older run has left aside."""
        older = results_of(self._path)
        if older:
            folder = move_aside(self._path, [*older, self._path / CONFIG_FILE])
            logger.warning(
                "A new run begins in %s, which held another one: what that has written is now in "
                "%s. To go on with a run, resume it (docs/checkpoints.md).",
                self._path,
                folder,
            )

    def _roll_back(self) -> None:
        """Remove everything of iterations after the last finished one; move its checkpoints."""
        ahead = [p for n, p in checkpoints_of(self._path).items() if n > self._iteration]
        if ahead:
            folder = move_aside(self._path, ahead)
            logger.warning("Checkpoints of later iterations are now in %s.", folder)
        removed = {
            f"rows of {name}": _trim(self._path / name, self._iteration)
            for name in (METRICS_FILE, MINIBATCHES_FILE)
        }
        removed["steps of TensorBoard events"] = remove_events_after(self._path, self._iteration)
        rollouts = numbered(self._path / ROLLOUTS_FOLDER, "iteration_", ".jsonl.gz")
        later = [file for iteration, file in rollouts.items() if iteration > self._iteration]
        for file in later:
            file.unlink()
        removed["rollouts files"] = len(later)
        found = ", ".join(f"{count} {what}" for what, count in removed.items() if count)
        if found:
            logger.warning(
                "The run goes on after iteration %d in %s, which held later results: removed %s.",
                self._iteration,
                self._path,
                found,
            )


def usable_directory(path: str | os.PathLike[str]) -> Path:
    """Make a run directory and see that files can be written there.

    Args:
        path: The setting `run_dir`.

    Returns:
        The absolute path.

    Raises:
        ValueError: If it cannot be made or written.
    """
    directory = Path(path).absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError as error:
        raise ValueError(
            f"`run_dir` ({str(path)!r}) cannot be written: {error}. Give a directory that this "
            "user may write, config.reporting(run_dir='...')."
        ) from error


def read_metrics(run_dir: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Read the metrics of a run, also of one that is still being written.

    Args:
        run_dir: The run directory.

    Returns:
        One dict per finished iteration, in order, with the iteration under "training_iteration".

    Raises:
        ValueError: For a damaged line, naming it.
    """
    rows = _read_rows(Path(run_dir) / METRICS_FILE)
    return [{key: number_from_json(value) for key, value in row.items()} for _, row in rows]


def read_minibatches(run_dir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the optimizer steps of a run, also of one that is still being written.

    Args:
        run_dir: The run directory.

    Returns:
        One dict per optimizer step, in order.

    Raises:
        ValueError: For a damaged line, naming it.
    """
    return [row for _, row in _read_rows(Path(run_dir) / MINIBATCHES_FILE)]


def _read_rows(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Lines and rows of a JSON lines file; a half-written last line is left out."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            is_complete = line.endswith(b"\n")
            try:
                row = json.loads(line)
                row[ITERATION]
            except (ValueError, TypeError, KeyError) as error:
                if not is_complete:
                    return
                raise ValueError(
                    f"{path}:{number}: not a row of a run directory: {line[:60]!r}. Remove this "
                    "line, or use another directory."
                ) from error
            yield line if is_complete else line + b"\n", row


def _trim(path: Path, iteration: int) -> int:
    """Keep the rows up to an iteration; returns how many others were removed."""
    if not path.exists():
        return 0
    rows = list(_read_rows(path))
    kept = [line for line, row in rows if row[ITERATION] <= iteration]
    if sum(map(len, kept)) != path.stat().st_size:
        _replace(path, kept)
    return len(rows) - len(kept)


def _append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = [json.dumps(json_value(row), allow_nan=False) for row in rows]
    left = memoryview("".join(f"{line}\n" for line in lines).encode("ascii"))
    # In one write, so that a killed process leaves at most one half-written line.
    with open(path, "ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            while left:  # a full disk takes a part, and raises at the next attempt
                left = left[file.write(left) :]
        except OSError:
            file.truncate(size)
            raise


def _replace(path: Path, lines: Sequence[bytes]) -> None:
    """Write a file in one step: other processes see the old one or the new one."""
    with written_in_one_step(path) as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
