"""What a remote env runner does when its engine is broken."""

import functools
import logging
import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefix_rft_rllib.engines import EngineBrokenError

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


def call_or_end_process(function: Callable[..., T], runner: Any, *args: Any, **kwargs: Any) -> T:
    """Call a function with an env runner; end this process if the runner's engine is broken.

    Args:
        function: Called with the runner and the other arguments.
        runner: An env runner that is alone in its process.
        *args: Passed on.
        **kwargs: Passed on.

    Returns:
        What the function returned.
    """
    try:
        return function(runner, *args, **kwargs)
    except EngineBrokenError:
        logger.exception(
            "The process of env runner %d ends: a new one has a new engine.", runner.worker_index
        )
        logging.shutdown()
        os._exit(1)  # nothing else ends a process one of whose threads hangs


def ends_process_if_broken(method: Callable[P, T]) -> Callable[P, T]:
    """Decorate a method of an env runner: a broken engine ends this process.

    Args:
        method: Called by another process.
    """

    @functools.wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        return call_or_end_process(method, *args, **kwargs)

    return guarded
