"""Ending actors that may not answer any more."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import ray

logger = logging.getLogger(__name__)

KILL_TIMEOUT_S = 20.0
"""How long killed processes may take to be gone, seconds."""


def kill_actors(actors: Sequence[Any], *, may_restart: bool = False) -> None:
    """End the processes of actors, those that hang too, and wait until Ray knows that they ended.

    Args:
        actors: Ray's actor handles, of classes with RLlib's `apply`.
        may_restart: Whether Ray starts them again, if their `max_restarts` allows it.
    """
    # `ray.kill` does not wait: these calls end with the processes, which answer nothing more.
    ends = [actor.apply.remote(_outlast_a_kill) for actor in actors]
    for actor in actors:
        ray.kill(actor, no_restart=not may_restart)
    _, alive = ray.wait(ends, num_returns=len(ends), timeout=KILL_TIMEOUT_S) if ends else ([], [])
    if alive:
        logger.error("%d killed processes are still there after %g s.", len(alive), KILL_TIMEOUT_S)


def _outlast_a_kill(actor: Any) -> None:
    time.sleep(2 * KILL_TIMEOUT_S)
