"""One process at a time writes into a run directory."""

import fcntl
import logging
from pathlib import Path

LOCK_FILE = ".lock"

logger = logging.getLogger(__name__)


class OneWriter:
    """A lock on a directory that ends with its process, however that ends.

    It is a process's: a second one in the same process is given, and ends the first when closed.

    Args:
        directory: What is written into.

    Raises:
        ValueError: If another process has it.
    """

    def __init__(self, directory: Path) -> None:
        self._file = (directory / LOCK_FILE).open("a")
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            self._file.close()
            raise ValueError(
                f"{directory}: another process is writing a run there. Wait for its end, end it, "
                "or give another directory."
            ) from error
        except OSError as error:
            logger.warning(
                "The file system of %s has no locks (%s): that one process alone writes there is "
                "not checked.",
                directory,
                error,
            )

    def close(self) -> None:
        """Let others write."""
        self._file.close()
