"""An algorithm whose run directory is complete, however the run ends."""

from functools import cached_property
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.utils.annotations import PublicAPI, override
from ray.rllib.utils.metrics import EVALUATION_RESULTS

from prefix_rft_rllib.processes.ending_signals import EndingSignals
from prefix_rft_rllib.runs.run_directory import usable_directory
from prefix_rft_rllib.runs.run_recorder import RunRecorder
from prefix_rft_rllib.settings.settings import Settings


class RecordedAlgorithm(Algorithm):
    """Part of `PrefixRFT`: its run directory, and how Ctrl-C and SIGTERM end an iteration."""

    config: Settings
    _recorder: RunRecorder
    _logdir: str
    _half_done: int | None = None
    """The iteration whose update has begun, until it is complete and written."""
    _failure: BaseException | None = None
    """What the last iteration that failed did so of."""
    _has_given_up_evaluation: bool = False
    """Whether the evaluation of this iteration was left out or given up."""

    @cached_property
    def _ending(self) -> EndingSignals:
        return EndingSignals()

    @PublicAPI
    @override(Algorithm)
    def train(self) -> dict[str, Any]:
        """One iteration.

        SIGINT (Ctrl-C) and SIGTERM end it: while it samples at once, so that the algorithm is as it
        was before; once its update has begun, or in parallel to an evaluation, when it is complete
        and written. A second signal ends it at once (docs/faults.md).

        Returns:
            RLlib's result of the iteration.

        Raises:
            KeyboardInterrupt: Of SIGINT.
            SystemExit: Of SIGTERM, with the exit code 143.
            RuntimeError: If the iteration before failed after its update had begun.
        """
        if self._half_done is not None:
            raise RuntimeError(
                f"Iteration {self._half_done} failed after its update had begun. Running it "
                "again would train on its groups twice: restore a checkpoint first. To go on with "
                "the model as it is now, algo.restore_from_path(algo.save_to_path()). It failed "
                f"of: {self._failure!r}"
            ) from self._failure
        try:
            with self._ending.watching():
                result: dict[str, Any] = super().train()
                return result
        except (KeyboardInterrupt, SystemExit) as signalled:
            self._failure = signalled
            self._before_end()
            raise
        except Exception as error:
            self._failure = error
            raise

    def _begin_update(self) -> None:
        """From here on a signal waits for the end of the iteration, which is never run again."""
        self._ending.hold()
        self._half_done = self.iteration + 1

    def _before_end(self) -> None:
        """What is done when a signal ends the run: all that is known is on disk."""
        self._recorder.close()

    @override(Algorithm)
    def _run_one_training_iteration_and_evaluation_in_parallel(self) -> Any:
        """Complete the iteration: it runs in a thread, where no signal can give it up."""
        self._ending.hold()
        return super()._run_one_training_iteration_and_evaluation_in_parallel()

    @override(Algorithm)
    def _run_one_evaluation(self, *args: Any, **kwargs: Any) -> Any:
        """An evaluation; left out if a signal has asked for the end, given up if one comes."""
        run = super()._run_one_evaluation
        results = self._ending.unless_asked(lambda: run(*args, **kwargs), None)
        self._has_given_up_evaluation = results is None
        return {} if results is None else results

    @override(Algorithm)
    def _setup_logdir(self) -> None:
        """Keep the log directory in `run_dir`: RLlib's place is in a home that may be read-only."""
        if self._storage is None and self.config.run_dir is not None:
            self._logdir = str(usable_directory(self.config.run_dir))
            return
        try:
            super()._setup_logdir()
        except OSError as error:
            raise ValueError(
                f"`run_dir` is not set, and RLlib's own place cannot be written: {error}. Use "
                "config.reporting(run_dir='...')."
            ) from error

    @override(Algorithm)
    def restore_from_path(self, path: str | Path, *args: Any, **kwargs: Any) -> None:
        super().restore_from_path(path, *args, **kwargs)
        self._half_done = None

    @override(Algorithm)
    def log_result(self, result: dict[str, Any]) -> None:
        if self._has_given_up_evaluation:
            result.pop(EVALUATION_RESULTS, None)  # RLlib repeats those of the last one
            self._has_given_up_evaluation = False
        super().log_result(result)
        self._recorder.add_result(result)
        self._half_done = None

    @override(Algorithm)
    def cleanup(self) -> None:
        super().cleanup()
        if hasattr(self, "_recorder"):
            self._recorder.close()
