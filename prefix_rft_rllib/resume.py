"""Go on with a run that was killed or paused, from the newest whole checkpoint in its directory.

    python -m prefix_rft_rllib.resume RUN_DIR [--stop-iters N]

The settings are those of the run. A damaged checkpoint is named, and the one before it is used.
Metrics, rollouts and TensorBoard events go on where they are; iterations after the checkpoint are
run again. At its end the run leaves a checkpoint. Settings in checkpoints are pickled, and reading
them may run code: resume only runs that you trust.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from prefix_rft_rllib.basics.text import without_controls

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m prefix_rft_rllib.resume",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="directory of the run")
    stop = "iteration at which to end; default: none, until the process is ended"
    parser.add_argument("--stop-iters", type=int, metavar="N", help=stop)
    accept = "what may differ from the checkpoint, such as data (docs/checkpoints.md)"
    parser.add_argument("--accept-changed", nargs="+", default=[], metavar="NAME", help=accept)
    return parser


def resume(run_dir: Path, stop_iters: int | None, accept_changed: Sequence[str]) -> None:
    """Train on, and leave a checkpoint of the last iteration.

    Args:
        run_dir: The run directory.
        stop_iters: The last iteration; None for no end.
        accept_changed: What may differ from the checkpoint, beside what the run's settings accept.

    Raises:
        ValueError: If there is nothing that can be gone on with.
    """
    from prefix_rft_rllib.prefix_rft import PrefixRFT

    algo = PrefixRFT.resume(run_dir, accept_changed=accept_changed)
    try:
        print(f"{run_dir}: going on after iteration {algo.iteration}")
        if stop_iters is not None and algo.iteration >= stop_iters:
            return
        while stop_iters is None or algo.iteration < stop_iters:
            algo.train()
        print(f"checkpoint of iteration {algo.iteration}: {algo.save_to_run_dir()}")
    finally:
        algo.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, or 2 if something given is wrong."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    args = _parser().parse_args(arguments)
    try:
        resume(args.run_dir, args.stop_iters, args.accept_changed)
    except (OSError, ValueError) as error:
        print(f"error: {without_controls(str(error))}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
