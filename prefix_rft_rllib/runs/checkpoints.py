"""Checkpoints as files: what one must hold, and those in a run directory (docs/checkpoints.md)."""

import logging
from importlib import metadata
from pathlib import Path
from typing import Any

from prefix_rft_rllib.basics.numbered_files import numbered
from prefix_rft_rllib.basics.whole_directories import (
    MANIFEST_FILE,
    DamagedDirectoryError,
    checked,
    put_back,
    remove_directory,
    remove_remains,
)

CHECKPOINTS_FOLDER = "checkpoints"
"""Of a run directory."""
METADATA_FILE = "rllib_checkpoint.json"
"""RLlib's, of every checkpoint of an algorithm."""
_LEARNER = "learner_group/learner"
PARTS = (
    "algorithm_state",
    f"{_LEARNER}/state",
    f"{_LEARNER}/rl_module/default_policy/module_state",
)
"""Files without which RLlib restores something else than was saved; .pkl or .msgpack."""
PACKAGES = ("prefix_rft_rllib", "ray", "torch", "transformers")

logger = logging.getLogger(__name__)


def versions() -> dict[str, str]:
    """The versions that a checkpoint is written with, by package."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def is_checkpoint(path: Path) -> bool:
    """Whether a directory is a checkpoint of an algorithm, whole or not."""
    return (path / METADATA_FILE).is_file()


def check_parts(path: Path) -> None:
    """Check that a checkpoint has all parts that restoring needs.

    Args:
        path: Its directory.

    Raises:
        DamagedDirectoryError: Naming those that are missing.
    """
    missing = [
        name
        for name in PARTS
        if not any((path / f"{name}{ending}").is_file() for ending in (".pkl", ".msgpack"))
    ]
    if missing:
        raise DamagedDirectoryError(
            f"{path} is no whole checkpoint: {', '.join(missing)} (.pkl or .msgpack) is missing."
        )


def check_checkpoint(path: Path) -> dict[str, Any] | None:
    """Check that a checkpoint is as it was written.

    Args:
        path: Its directory.

    Returns:
        What is known about it: `iteration`, `versions`, `fingerprint`. None of one that an older
        version wrote without checksums; a warning says so.

    Raises:
        DamagedDirectoryError: Naming what is missing, shorter or longer, or changed.
        FileNotFoundError: If there is none.
    """
    about = checked(path)
    check_parts(path)
    if about is None:
        logger.warning(
            "%s has no %s: it was written by a version without checksums, or is a copy that lacks "
            "it. Its parts are there, but whether they are what was written, and from which data "
            "and settings, cannot be checked.",
            path,
            MANIFEST_FILE,
        )
    elif not all(isinstance(about.get(name), dict) for name in ("versions", "fingerprint")):
        raise DamagedDirectoryError(
            f"{path} is damaged: {MANIFEST_FILE} does not say from which data and settings it is."
        )
    return about


def checkpoint_path(run_dir: str | Path, iteration: int) -> Path:
    """Where a run directory has the checkpoint of an iteration."""
    return Path(run_dir) / CHECKPOINTS_FOLDER / f"iteration_{iteration:06d}"


def checkpoints_of(run_dir: str | Path) -> dict[int, Path]:
    """The checkpoints in a run directory by iteration, the newest last; whole or not.

    What has another name, such as a copy that a user has made beside one, is none of them.
    """
    found = numbered(Path(run_dir) / CHECKPOINTS_FOLDER, "iteration_", "")
    return {iteration: path for iteration, path in found.items() if path.is_dir()}


def newest_checkpoint(run_dir: str | Path) -> Path | None:
    """Find the newest checkpoint of a run that is whole.

    Args:
        run_dir: The run directory.

    Returns:
        Its directory; None if there is no checkpoint at all. A warning names newer ones that are
        damaged.

    Raises:
        ValueError: If there are checkpoints and all are damaged.
    """
    put_back(Path(run_dir) / CHECKPOINTS_FOLDER)
    damages = []
    for path in reversed(checkpoints_of(run_dir).values()):
        try:
            check_checkpoint(path)
        except DamagedDirectoryError as error:
            damages.append(str(error))
            logger.warning("%s The checkpoint before it is tried.", error)
        else:
            return path
    if damages:
        raise ValueError(
            f"No checkpoint in {run_dir} is whole: {' '.join(damages)} Start the run again, or "
            "give the directory of a copy."
        )
    return None


def remove_old_checkpoints(run_dir: str | Path, *, keep_last: int, keep_every: int | None) -> None:
    """Remove checkpoints that need not stay, and what killed processes have left of some.

    Args:
        run_dir: The run directory. Only the run that writes it may call this.
        keep_last: How many of the newest stay.
        keep_every: Those of iterations that are multiples of it stay too.
    """
    older = list(checkpoints_of(run_dir).items())[:-keep_last]
    try:
        for iteration, path in older:
            if not (keep_every and iteration % keep_every == 0):
                remove_directory(path)
        remove_remains(Path(run_dir) / CHECKPOINTS_FOLDER)
    except OSError as error:  # such as a file that another process reads, on NFS
        logger.warning("Old checkpoints could not be removed (%s); tried again later.", error)
