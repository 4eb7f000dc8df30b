"""What an older run, or later iterations of this one, have left in a run directory."""

import os
from collections.abc import Sequence
from pathlib import Path

from prefix_rft_rllib.runs.checkpoints import CHECKPOINTS_FOLDER
from prefix_rft_rllib.runs.tensorboard_events import FILE_SUFFIX

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
MINIBATCHES_FILE = "minibatches.jsonl"
ROLLOUTS_FOLDER = "rollouts"
PREVIOUS = "previous_"
"""Begins the names of folders with what an older run has left."""


def results_of(run_dir: Path) -> list[Path]:
    """What a run has written, but for its settings; checkpoints first."""
    names = (CHECKPOINTS_FOLDER, ROLLOUTS_FOLDER, MINIBATCHES_FILE, METRICS_FILE)
    found = [run_dir / name for name in names if (run_dir / name).exists()]
    return [*found, *sorted(run_dir.glob(f"events.out.tfevents.*{FILE_SUFFIX}"))]


def move_aside(run_dir: Path, paths: Sequence[Path]) -> Path:
    """Move files and folders of a run directory into a new folder in it, in their order.

    Args:
        run_dir: The run directory.
        paths: What lies in it; those that are missing are left out.

    Returns:
        The folder: `previous_1`, or with the next number.
    """
    taken = [path.name.removeprefix(PREVIOUS) for path in run_dir.glob(f"{PREVIOUS}*")]
    number = 1 + max((int(name) for name in taken if name.isdecimal()), default=0)
    folder = run_dir / f"{PREVIOUS}{number}"
    for path in filter(os.path.exists, paths):
        place = folder / path.relative_to(run_dir)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    return folder
