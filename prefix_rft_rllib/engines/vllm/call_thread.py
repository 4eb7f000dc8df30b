"""Calls in a thread of their own, so that the caller need not wait for one that hangs."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any


class CallThread:
    """Runs calls one after the other in one thread.

    The thread is a daemon: a call that never returns does not keep the process alive.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future, Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=_run_calls, args=(self._calls,), name=name, daemon=True).start()

    def submit(self, function: Callable[[], Any]) -> Future:
        """Run a function after those submitted before; returns its future result."""
        future: Future = Future()
        self._calls.put((future, function))
        return future

    def stop(self) -> None:
        """End the thread after the calls submitted so far."""
        self._calls.put(None)


def _run_calls(calls: SimpleQueue) -> None:
    while (call := calls.get()) is not None:
        future, function = call
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)
        # Nothing of a finished call, such as weights, is kept until the next one.
        del call, future, function
