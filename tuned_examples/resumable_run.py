"""A training run in pieces: options that stay the same in all, and going on where it was."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from example_script import iterations

from prefix_rft_rllib import PrefixRFT, PrefixRFTConfig
from prefix_rft_rllib.evaluation.report import write_results
from prefix_rft_rllib.runs.checkpoints import checkpoints_of

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


def trained(config: PrefixRFTConfig, args: argparse.Namespace) -> PrefixRFT:
    """Train to `stop_iters`, from the newest checkpoint in the run directory if there is one.

    Args:
        config: The run's settings.
        args: Of `example_script.parse_options`.

    Returns:
        The algorithm; what was trained is in a checkpoint.
    """
    has_begun = bool(checkpoints_of(config.run_dir))
    algo = PrefixRFT.resume(config.run_dir, config=config) if has_begun else config.build_algo()
    try:
        if algo.iteration:
            sys.stdout.write(f"{config.run_dir}: going on after iteration {algo.iteration}\n")
        first = algo.iteration
        for _ in iterations(algo, args):
            pass  # each writes its row and, if it is due, a checkpoint
        if algo.iteration > first:
            algo.save_to_run_dir()
    except BaseException:
        algo.stop()
        raise
    return algo
