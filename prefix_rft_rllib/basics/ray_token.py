"""A token for Ray where the home directory cannot be written."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

TOKEN = "RAY_AUTH_TOKEN"
"""Environment variable that Ray reads a token from, before any file."""
USER_SETTINGS = (TOKEN, "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")
"""Environment variables of a user who has decided on tokens, or on a cluster that has its own."""


def provide_token() -> None:
    """Give this process, and Ray's processes that it starts, a token if Ray could not save one.

    A cluster that `ray.init()` starts is protected by a token. Ray writes it into
    `~/.ray/auth_token` if there is none, and fails where that cannot be written. This does nothing
    where there is a token, where one can be written, or where the user has set how Ray finds its
    token or its cluster.
    """
    if any(os.environ.get(name) for name in USER_SETTINGS):
        return
    path = Path.home() / ".ray" / "auth_token"
    if not path.is_file() and not can_write(path.parent):
        os.environ[TOKEN] = secrets.token_hex(32)


def can_write(folder: Path) -> bool:
    """Whether a file can be made in a folder, or in what must hold it; leaves nothing behind."""
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryFile(dir=existing):
            return True
    except OSError:
        return False
