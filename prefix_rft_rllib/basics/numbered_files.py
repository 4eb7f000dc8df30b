"""Files and folders whose names have a number of six digits or more."""

import re
from pathlib import Path


def numbered(folder: Path, before: str, after: str) -> dict[int, Path]:
    """Find what a folder has under numbered names.

    Args:
        folder: The folder; one that is missing has nothing.
        before: What a name has before the number.
        after: What a name has behind it.

    Returns:
        Paths by number, the smallest first. Names that have anything else are left out.
    """
    pattern = re.compile(f"{re.escape(before)}([0-9]{{6,}}){re.escape(after)}")
    paths = folder.iterdir() if folder.is_dir() else ()
    found = {int(match[1]): path for path in paths if (match := pattern.fullmatch(path.name))}
    return dict(sorted(found.items()))
