"""How the process of a remote env runner ends when a call raises, so that Ray starts a new one."""

import functools
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

from ray._private.worker import raise_sys_exit_with_custom_error_message

from prefix_rft_rllib.engines import EngineBrokenError
from prefix_rft_rllib.processes.failures import cause_of

logger = logging.getLogger(__name__)

HANGING_THREADS_S = 2.0
"""How long a process with a broken engine has to end in good order, seconds."""

P = ParamSpec("P")
T = TypeVar("T")


def call_or_end_process(function: Callable[..., T], runner: Any, *args: Any, **kwargs: Any) -> T:
    """Call a function with an env runner; end this process if it raises: its state is not known.

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
    except Exception as error:
        end_process(runner, error)


def ends_process_if_broken(
    method: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[Any, P], T]:
    """Decorate a method of an env runner: a broken engine ends this process.

    Args:
        method: Called by another process, which gets all other errors.
    """

    @functools.wraps(method)
    def guarded(runner: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(runner, *args, **kwargs)
        except EngineBrokenError as error:
            end_process(runner, error)

    return guarded


def end_process(runner: Any, error: BaseException) -> NoReturn:
    """End this process; the cause is in its log, and in the error that the caller gets.

    A broken engine may have a thread that hangs and keeps the process alive: it is then ended all
    the same, after some seconds.

    Args:
        runner: The env runner of this process.
        error: The cause.
    """
    logger.exception("The process of env runner %d ends: a new one starts.", runner.worker_index)
    if isinstance(error, EngineBrokenError):
        logging.shutdown()
        timer = threading.Timer(HANGING_THREADS_S, os._exit, (1,))
        timer.daemon = True
        timer.start()
    else:
        time.sleep(runner.config.delay_between_env_runner_restarts_s)
    raise_sys_exit_with_custom_error_message(f"It raised {cause_of(error)}", exit_code=1)
    raise AssertionError("not reached")
