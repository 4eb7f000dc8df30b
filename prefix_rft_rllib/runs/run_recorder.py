"""What the user sees of a run: one line per iteration, the run directory."""

import contextlib
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrow.fs import LocalFileSystem
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EVALUATION_RESULTS,
    LEARNER_RESULTS,
)

from prefix_rft_rllib import metrics
from prefix_rft_rllib.envs.problems import ProblemSet
from prefix_rft_rllib.runs.progress import ProgressTable
from prefix_rft_rllib.runs.rollout_records import RolloutRecord
from prefix_rft_rllib.runs.run_directory import RunDirectory
from prefix_rft_rllib.runs.user_metrics import user_metrics
from prefix_rft_rllib.settings.settings import Settings

logger = logging.getLogger(__name__)


def run_path(logdir: str, storage: Any) -> str:
    """The run directory: the trial's results under Tune, else the log directory.

    Tune's `logdir` is a scratch directory; results on remote storage are reached from there by
    `RunConfig(sync_config=SyncConfig(sync_artifacts=True))`.

    Args:
        logdir: RLlib's log directory.
        storage: Tune's `StorageContext`; None outside Tune.
    """
    if storage is not None and isinstance(storage.storage_filesystem, LocalFileSystem):
        return storage.trial_fs_path
    return logdir


class RunRecorder:
    """Writes the run directory and prints the progress table.

    Args:
        config: The run's settings.
        directory: The run directory: the algorithm's log directory, under Tune the trial's.
        problem_set: The problems, whose tokenizer decodes sample rollouts.
        is_trial: Whether Tune runs this as a trial; then Tune reports progress.
    """

    def __init__(
        self, config: Settings, directory: str, problem_set: ProblemSet, *, is_trial: bool
    ) -> None:
        self._config = config
        self._directory = directory
        self._problem_set = problem_set
        self._prints = not is_trial if config.progress is None else config.progress
        self._table = ProgressTable(sys.stdout) if self._prints else None
        self._run = self._opened(None)

    def _opened(self, iteration: int | None) -> RunDirectory:
        run = RunDirectory(self._directory, iteration=iteration)
        run.write_config(self._config.record())
        return run

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self._run.path

    @property
    def prints(self) -> bool:
        """Whether progress is printed; else it goes to the log."""
        return self._prints

    def show(self, text: str) -> None:
        """Print a text, or log it."""
        if self._prints:
            sys.stdout.write(f"{text}\n")
        else:
            logger.info("%s", text)

    def reopen(self, iteration: int) -> None:
        """Go on in a run directory after a restore; rows of later iterations are removed."""
        self._run.close()
        self._run = self._opened(iteration)

    def add_update(
        self, iteration: int, records: list[RolloutRecord], minibatches: list[dict[str, Any]]
    ) -> None:
        """Write the rollouts and optimizer steps of one iteration.

        Args:
            iteration: Number of the iteration as in RLlib's results, from 1.
            records: Its logged rollouts.
            minibatches: What each optimizer step did.
        """
        with self._writing(iteration):
            self._run.write_rollouts(iteration, records, tokenizer=self._problem_set.tokenizer)
            self._run.write_minibatches(iteration, minibatches)

    def add_result(self, result: dict[str, Any]) -> None:
        """Write and print the metrics of one iteration.

        Args:
            result: RLlib's result of the iteration.
        """
        row = self._flat_row(result)
        with self._writing(result["training_iteration"]):
            self._run.write_metrics(result["training_iteration"], row)
        if self._table is not None:
            self._table.print_row(result["training_iteration"], row)

    def lock(self) -> None:
        """Let no other process write into the run directory, until `close`."""
        self._run.lock()

    def flush(self) -> None:
        """See that what was written is on the disk."""
        self._run.flush()

    def close(self) -> None:
        """Close all files."""
        self._run.close()

    @contextlib.contextmanager
    def _writing(self, iteration: int) -> Iterator[None]:
        """Name the directory in errors of the disk, and what is lost."""
        try:
            yield
        except OSError as error:
            free = shutil.disk_usage(self._directory).free / 2**20
            raise OSError(
                error.errno,
                f"The run directory {self._directory} cannot be written: {error}. {free:.0f} MiB "
                f"are free there. Iteration {iteration} is not recorded as a whole. Make room, and "
                "go on from the newest checkpoint",
            ) from error

    def _flat_row(self, result: dict[str, Any]) -> dict[str, float | int]:
        """The metrics of `metrics.py` in a result, and what the user's callbacks have added."""
        runner = result.get(ENV_RUNNER_RESULTS, {})
        times = {
            **result.get(metrics.TIME, {}),
            metrics.GENERATION_TIME: runner.get(metrics.GENERATION_TIME),
            metrics.VERIFICATION_TIME: runner.get(metrics.VERIFICATION_TIME),
        }
        sampled = result.get(metrics.ROLLOUTS, {}).get(metrics.NUM_SAMPLED_TOKENS)
        seconds = times.get(metrics.ITERATION_TIME)
        if sampled is not None and seconds:
            times[metrics.TOKENS_PER_SECOND] = float(sampled) / float(seconds)
        learner = result.get(LEARNER_RESULTS, {}).get(DEFAULT_MODULE_ID, {})
        tree: dict[str, Any] = {
            metrics.ROLLOUTS: result.get(metrics.ROLLOUTS, {}),
            metrics.LEARNER: {k: v for k, v in learner.items() if k in metrics.LEARNER_METRICS},
            metrics.IMITATION_STEP: result.get(metrics.IMITATION_STEP, {}),
            metrics.FAULTS: result.get(metrics.FAULTS, {}),
            metrics.TIME: times,
        }
        row = metrics.flatten(tree)
        interval = self._config.evaluation_interval
        has_evaluated = interval and result["training_iteration"] % interval == 0
        for key, value in user_metrics(result).items():
            # RLlib repeats the results of an evaluation in the iteration after it.
            if has_evaluated or not key.startswith(f"{EVALUATION_RESULTS}/"):
                row.setdefault(key, value)
        return row
