"""Calls in a thread of their own that give results one by one, and are given up when they hang."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from prefix_rft_rllib.engines.engine import EngineBrokenError
from prefix_rft_rllib.engines.vllm.call_thread import CallThread

T = TypeVar("T")

GRACE_S = 10.0
"""How long a call that was given up may take to end its current step, seconds."""
_END = object()


class Call:
    """One call as the called function sees it."""

    def __init__(self) -> None:
        self.results: SimpleQueue = SimpleQueue()
        self.progress_at = time.monotonic()
        self._is_given_up = threading.Event()

    def give(self, result: Any) -> None:
        """Hand a result to the caller, who may use it while the function goes on."""
        self.note_progress()
        self.results.put(result)

    def note_progress(self) -> None:
        """Something was done: the caller's patience starts anew."""
        self.progress_at = time.monotonic()

    def check(self) -> None:
        """Raise if the caller no longer waits; functions call this between their steps.

        Raises:
            RuntimeError: If the call was given up.
        """
        if self._is_given_up.is_set():
            raise RuntimeError("the call was given up")

    def give_up(self) -> None:
        """Let the next `check` raise."""
        self._is_given_up.set()


class WatchedCalls:
    """Runs functions in one thread and notices when one hangs.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self.thread = CallThread(name)
        self.is_stuck = False
        """Whether a call that was given up has never ended; further ones would wait for it."""

    def run(self, function: Callable[[], T], timeout_s: float) -> T:
        """The result of a function that must be done within a time; errors are those of `stream`.

        Args:
            function: Runs in the thread.
            timeout_s: Most seconds it may take.
        """
        (result,) = self.stream(lambda call: call.give(function()), timeout_s)
        return result

    def stream(self, function: Callable[[Call], None], timeout_s: float) -> Iterator[Any]:
        """Yield what a function gives away while it runs.

        Closing the iterator early gives the call up and waits until the function has noticed.

        Args:
            function: Runs in the thread, calls `give` and now and then `check`.
            timeout_s: Most seconds without a result or other progress.

        Yields:
            What the function gave, in its order.

        Raises:
            TimeoutError: If there is no progress for `timeout_s`; the function has ended.
            EngineBrokenError: The same, and the function has not ended.
            Exception: What the function raised, after all that it gave.
        """
        call = Call()
        future = self.thread.submit(lambda: function(call))
        future.add_done_callback(lambda _: call.results.put(_END))
        try:
            while (result := _next_result(call, timeout_s)) is not _END:
                yield result
        except BaseException as error:  # also an interrupt, or the end of the caller's interest
            call.give_up()
            if not wait([future], timeout=min(GRACE_S, timeout_s)).done:
                self.is_stuck = True
                if isinstance(error, Exception):
                    raise EngineBrokenError(f"{error} It has not come back since.") from error
            raise
        future.result()

    def stop(self) -> None:
        """End the thread after the calls under way."""
        self.thread.stop()


def _next_result(call: Call, timeout_s: float) -> Any:
    while True:
        seconds_left = call.progress_at + timeout_s - time.monotonic()
        try:
            return call.results.get(timeout=max(seconds_left, 0.0))
        except Empty:
            if time.monotonic() < call.progress_at + timeout_s:
                continue
            raise TimeoutError(
                f"vLLM made no progress for `timeout_s` ({timeout_s} s). If a single step may "
                "take longer here, raise it in engine_config."
            ) from None
