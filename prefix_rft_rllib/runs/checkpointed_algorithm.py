"""An algorithm whose checkpoints are whole or not there, and checked before they are restored."""

import contextlib
import logging
import tempfile
import uuid
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pyarrow.fs
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.utils.annotations import PublicAPI, override
from ray.tune import Checkpoint
from ray.tune.result import TIME_TOTAL_S

from prefix_rft_rllib.basics.whole_directories import MANIFEST_FILE, checked, written_whole
from prefix_rft_rllib.envs.problems import ProblemSet
from prefix_rft_rllib.methods import Method
from prefix_rft_rllib.runs.checkpoints import (
    check_checkpoint,
    check_parts,
    checkpoint_path,
    is_checkpoint,
    newest_checkpoint,
    remove_old_checkpoints,
    versions,
)
from prefix_rft_rllib.runs.one_writer import OneWriter
from prefix_rft_rllib.runs.recorded_algorithm import RecordedAlgorithm
from prefix_rft_rllib.runs.run_directory import usable_directory
from prefix_rft_rllib.settings.fingerprint import differences, fingerprint
from prefix_rft_rllib.settings.running_settings import FINGERPRINTED
from prefix_rft_rllib.settings.saved_settings import saved_settings
from prefix_rft_rllib.settings.settings import Settings

logger = logging.getLogger(__name__)


class CheckpointedAlgorithm(RecordedAlgorithm):
    """Part of `PrefixRFT`: how its checkpoints are written, checked, restored and found."""

    method: Method
    problem_set: ProblemSet
    _time_total: float

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        """What this run's draws and rewards depend on."""
        return fingerprint(self.config, self.method, self.problem_set)

    @PublicAPI
    @override(Algorithm)
    def save_to_path(
        self,
        path: str | Path | None = None,
        *,
        filesystem: pyarrow.fs.FileSystem | None = None,
        **kwargs: Any,
    ) -> str:
        """Write a checkpoint: all of it, on disk, or nothing.

        Every file is read once more, for its checksum, and flushed to the disk
        (docs/checkpoints.md).

        Args:
            path: Its directory; an earlier checkpoint there is replaced once this one is complete.
                None for a new one in the directory for temporary files.
            filesystem: A file system of pyarrow; default: that of the path, which may be a URI.
            **kwargs: RLlib's own.

        Returns:
            The path.

        Raises:
            ValueError: If other files are at the path, or it cannot be written.
        """
        path = path or Path(tempfile.gettempdir()) / str(uuid.uuid4())
        remote, place = _place(path, filesystem)
        with contextlib.ExitStack() as stack:
            local = Path(place)
            if remote is not None:
                local = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "checkpoint"
            about = {
                "iteration": self.iteration,
                "versions": versions(),
                "fingerprint": self._fingerprint,
            }
            with written_whole(local, about, is_checkpoint) as unfinished:
                super().save_to_path(str(unfinished), **kwargs)
                check_parts(unfinished)
            if remote is not None:
                _upload(local, remote, place)
        return str(path)

    @classmethod
    @override(Algorithm)
    def from_checkpoint(
        cls,
        path: str | Path | Checkpoint,
        filesystem: pyarrow.fs.FileSystem | None = None,
        **kwargs: Any,
    ) -> Self:
        """Build an algorithm as it was when a checkpoint was written.

        The files are checked before anything is built. The settings in it are pickled: load only
        checkpoints that you trust.

        Args:
            path: Its directory, or Tune's `Checkpoint`.
            filesystem: A file system of pyarrow; default: that of the path, which may be a URI.
            **kwargs: RLlib's own; `config`: other settings than those in the checkpoint.

        Returns:
            The algorithm.

        Raises:
            ValueError: If the checkpoint is damaged, or of a run whose draws depend on other data
                or settings than this one's (`config.checkpointing(accept_changed=...)`).
        """
        if isinstance(path, Checkpoint):
            path, filesystem = path.path, path.filesystem
        with _local_copy(path, filesystem) as local:
            check_checkpoint(local)
            algo: Self = super().from_checkpoint(str(local), **kwargs)
            return algo

    @override(Algorithm)
    def restore_from_path(
        self,
        path: str | Path,
        *args: Any,
        component: str | None = None,
        filesystem: pyarrow.fs.FileSystem | None = None,
        **kwargs: Any,
    ) -> None:
        """Restore a checkpoint, or a component of one; both are checked before.

        Args:
            path: Directory of the checkpoint, or of the component.
            *args: RLlib's own.
            component: Path of the component in the checkpoint.
            filesystem: A file system of pyarrow; default: that of the path, which may be a URI.
            **kwargs: RLlib's own.

        Raises:
            ValueError: As for `from_checkpoint`; nothing has changed then.
        """
        with _local_copy(path, filesystem) as local:
            if component is None:
                about = check_checkpoint(local)
                if about is not None:
                    self._check_origin(local, about)
            else:
                kwargs["component"] = component
                _check_component(local, component)
            super().restore_from_path(str(local), *args, **kwargs)

    def _check_origin(self, path: Path, about: dict[str, Any]) -> None:
        """Refuse a checkpoint of other data or settings; what is accepted is said.

        So is what another version compared and this one does not know: it cannot be the same.
        """
        found = differences(about["fingerprint"], self._fingerprint)
        accepted = {*self.config.accept_changed, *(about["fingerprint"].keys() - FINGERPRINTED)}
        refused = {n: text for n, text in found.items() if n not in accepted}
        if refused:
            raise ValueError(
                f"{path} is a checkpoint of a run with other draws or rewards: "
                f"{'; '.join(refused.values())}. Restore it with the data and settings that it was "
                "written with. To go on with these, name what may differ: "
                f"config.checkpointing(accept_changed={[*refused]})."
            )
        other = differences(about["versions"], versions())
        if found or other:
            logger.warning(
                "%s was written differently: %s. The run goes on with what is here; its numbers "
                "may be others than those of an uninterrupted run.",
                path,
                "; ".join([*found.values(), *other.values()]),
            )

    @override(Algorithm)
    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {**super().get_state(*args, **kwargs), TIME_TOTAL_S: self._time_total}

    @override(Algorithm)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._time_total = state.get(TIME_TOTAL_S, self._time_total)

    @PublicAPI
    def save_to_run_dir(self) -> Path:
        """Write a checkpoint into the run directory now; older ones go as `checkpointing` says.

        Returns:
            Its directory.
        """
        self._recorder.flush()  # on disk no later than the checkpoint of their iteration
        directory = self._recorder.directory
        path = checkpoint_path(directory, self.iteration)
        self.save_to_path(path)
        remove_old_checkpoints(
            directory, keep_last=self.config.keep_last, keep_every=self.config.keep_every
        )
        return path

    @classmethod
    @PublicAPI
    def resume(
        cls,
        run_dir: str | Path,
        *,
        config: Settings | None = None,
        accept_changed: Collection[str] = (),
    ) -> Self:
        """Go on with a run from the newest whole checkpoint in its directory.

        Rows, rollouts and events of later iterations are removed before the first new one is
        written. The settings in a checkpoint are pickled: resume only runs that you trust.

        Args:
            run_dir: The run directory, wherever it lies now.
            config: Other settings than those in the checkpoint, but for the run directory.
            accept_changed: What may differ from the checkpoint, beside what these settings accept.

        Returns:
            The algorithm; its `iteration` is that of the checkpoint.

        Raises:
            ValueError: If there is no whole checkpoint, if the directory cannot be written, if
                another process writes the run, or as for `from_checkpoint`.
        """
        if not Path(run_dir).is_dir():
            raise ValueError(f"There is no run directory {str(run_dir)!r}.")
        place = usable_directory(run_dir)
        with contextlib.closing(OneWriter(place)):  # loading may take minutes
            checkpoint = newest_checkpoint(run_dir)
            if checkpoint is None:
                raise ValueError(
                    f"{run_dir} holds no checkpoint: the run did not live to write one, or was not "
                    "to. Start it again with config.checkpointing(every=...), which writes some."
                )
            if config is None:
                config = cls.get_default_config().from_state(saved_settings(checkpoint))
            config = config.copy(copy_frozen=False).reporting(run_dir=str(place))
            config.checkpointing(accept_changed=(*config.accept_changed, *accept_changed))
            algo = cls.from_checkpoint(checkpoint, config=config)
        algo._recorder.lock()
        return algo

    @override(Algorithm)
    def log_result(self, result: dict[str, Any]) -> None:
        super().log_result(result)
        if self.config.every and self.iteration % self.config.every == 0:
            self.save_to_run_dir()

    @override(RecordedAlgorithm)
    def _before_end(self) -> None:
        """With `every`, a run that a signal ends leaves a checkpoint of its last iteration."""
        if self.config.every and self.iteration and self._half_done is None:
            path = checkpoint_path(self._recorder.directory, self.iteration)
            try:
                if not path.exists():
                    self.save_to_run_dir()
            except Exception:
                logger.exception("No checkpoint of iteration %d could be written.", self.iteration)
        super()._before_end()


def _check_component(path: Path, component: str) -> None:
    """Check the files of a component, if it lies in a checkpoint that can be checked."""
    if path.as_posix().endswith(f"/{component}"):
        checked(path.parents[len(Path(component).parts) - 1], component)


def _place(
    path: str | Path, filesystem: pyarrow.fs.FileSystem | None
) -> tuple[pyarrow.fs.FileSystem | None, str]:
    """The file system of a path, None for the local one, and the path there."""
    if filesystem is None:
        if "://" not in str(path):
            return None, str(Path(path).absolute())
        filesystem, path = pyarrow.fs.FileSystem.from_uri(str(path))
    is_local = isinstance(filesystem, pyarrow.fs.LocalFileSystem)
    return (None if is_local else filesystem), str(path)


def _upload(directory: Path, remote: pyarrow.fs.FileSystem, place: str) -> None:
    """Copy a checkpoint to another file system; its manifest comes last."""
    manifest = (directory / MANIFEST_FILE).rename(directory.with_name(MANIFEST_FILE))
    pyarrow.fs.copy_files(str(directory), place, destination_filesystem=remote)
    target = f"{place}/{MANIFEST_FILE}"
    pyarrow.fs.copy_files(str(manifest), target, destination_filesystem=remote)


@contextlib.contextmanager
def _local_copy(path: str | Path, filesystem: pyarrow.fs.FileSystem | None) -> Iterator[Path]:
    """A directory where it is, or a copy of a remote one while it is needed."""
    remote, place = _place(path, filesystem)
    if remote is None:
        yield Path(place)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkpoint"
        copy.mkdir()
        pyarrow.fs.copy_files(place, str(copy), source_filesystem=remote)
        yield copy
