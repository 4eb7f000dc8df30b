"""What Ctrl-C (SIGINT) and SIGTERM do to a process that trains."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeVar

from prefix_rft_rllib.processes.places import is_actor

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)

T = TypeVar("T")


class EndingSignals:
    """Lets signals end work where nothing is half done.

    Work that may be given up ends at once, by `KeyboardInterrupt` or, for SIGTERM,
    `SystemExit(143)`. After `hold` a signal waits until the work is complete; a second one ends it
    at once.
    """

    def __init__(self) -> None:
        self._is_watching = False
        self._is_held = False
        self._may_give_up = False
        self._received: signal.Signals | None = None
        self._raised: tuple[BaseException, signal.Signals] | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Around the work: signals come here; a held one is raised at the end.

        Nothing changes in an actor of Ray, outside the main thread, for signals that the process
        ignores, and inside another `watching`.

        Raises:
            KeyboardInterrupt: Of SIGINT.
            SystemExit: Of SIGTERM, with the exit code 143.
        """
        is_main_thread = threading.current_thread() is threading.main_thread()
        if self._is_watching or is_actor() or not is_main_thread:
            yield
            return
        watched = [s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._receive) for number in watched}
        self._is_watching = True
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            received, self._received, self._raised = self._received, None, None
            self._is_watching = self._is_held = self._may_give_up = False
        if received is not None:
            raise _ending_of(received)

    def hold(self) -> None:
        """From here to the end of `watching` the work is completed before a signal ends it.

        Another thread may say so while the main one watches.
        """
        self._is_held = self._is_watching

    def unless_asked(self, work: Callable[[], T], otherwise: T) -> T:
        """Do a part of held work that may be left out.

        Args:
            work: Left out if a signal waits, and given up if one comes.
            otherwise: Its result then.

        Returns:
            The result.
        """
        if not self._is_held:
            return work()
        if self._received is not None:
            return otherwise
        self._may_give_up = True
        try:
            return work()
        except (KeyboardInterrupt, SystemExit) as error:
            if self._raised is None or error is not self._raised[0]:
                raise
            self._received = self._raised[1]
            return otherwise
        finally:
            self._may_give_up = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        if self._is_held and not self._may_give_up and self._received is None:
            self._received = received
            logger.warning(
                "%s: this iteration is completed first. Once more ends it at once, and leaves the "
                "model as it is then.",
                received.name,
            )
            return
        ending = _ending_of(received)
        self._raised = ending, received
        raise ending


def _ending_of(number: signal.Signals) -> BaseException:
    if number == signal.SIGINT:
        return KeyboardInterrupt(f"{number.name} from a terminal or another process")
    return SystemExit(128 + number)  # what shells report of a process that a signal ended
