"""Files that are whole or not there: written beside their place, then renamed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def written_in_one_step(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of another when it is complete.

    Args:
        path: Other processes see the old file there or the new one. On an error the old one stays,
            and nothing of the new one is left.

    Yields:
        The new file, open for writing.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
