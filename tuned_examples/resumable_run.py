"""A training run in pieces: killed or paused anywhere, it goes on from its newest checkpoint."""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from example_script import iterations, save_checkpoint

from prefix_rft_rllib import PrefixRFT
from prefix_rft_rllib.evaluation.report import write_results

RUN_FILE = "run.json"


def begin(run_dir: Path, run: Mapping[str, Any], *, resume: bool) -> None:
    """Write what a run is started with, or see that its directory holds this run.

    Args:
        run_dir: The run directory; made if missing.
        run: What stays the same in all pieces, as JSON has it.
        resume: Whether the run goes on.

    Raises:
        ValueError: If there is a run without `resume`, or none, or another one, with it.
    """
    run_file = run_dir / RUN_FILE
    if not resume:
        if run_file.is_file():
            raise ValueError(
                f"{run_dir} holds a run. Add --resume to go on with it, or give another --run-dir."
            )
        run_dir.mkdir(parents=True, exist_ok=True)
        write_results(run_file, run)
        return
    if not run_file.is_file():
        raise ValueError(f"--resume: {run_dir} holds no run. Leave --resume out to begin one.")
    found = json.loads(run_file.read_text())
    changed = [
        f"{name} is {found.get(name)!r} there and {run.get(name)!r} now"
        for name in {**found, **run}
        if found.get(name) != run.get(name)
    ]
    if changed:
        raise ValueError(
            f"--resume: {run_dir} holds another run: {'; '.join(changed)}. Give the options it was "
            "started with, or another --run-dir without --resume."
        )


def checkpoints(run_dir: Path) -> list[Path]:
    """Complete checkpoints, the newest last."""
    return sorted(run_dir.glob("checkpoint_[0-9]*"))


def keep_newest(run_dir: Path) -> None:
    """Remove all checkpoints but the newest."""
    for path in checkpoints(run_dir)[:-1]:
        shutil.rmtree(path)


def train(algo: PrefixRFT, args: argparse.Namespace) -> None:
    """Go on from the newest checkpoint, if there is one, to `stop_iters`; the end is saved too.

    Args:
        algo: Just built.
        args: Of `example_script.parse_options`; `checkpoint_freq` says when to save.
    """
    run_dir = Path(algo.config.run_dir)
    if found := checkpoints(run_dir):
        algo.restore_from_path(str(found[-1].resolve()))
        sys.stdout.write(f"{found[-1]}: going on after iteration {algo.iteration}\n")
    if algo.iteration >= args.stop_iters:
        return
    for _ in iterations(algo, args):
        keep_newest(run_dir)
    last = f"checkpoint_{algo.iteration:06d}"
    if not (run_dir / last).is_dir():
        save_checkpoint(algo, last)
        keep_newest(run_dir)
