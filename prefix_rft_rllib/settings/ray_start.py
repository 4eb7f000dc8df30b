"""Ray on machines as they are: without shared memory, or with a token of their own."""

import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray

from prefix_rft_rllib.basics.ray_token import can_write

TOKEN_HINT = (
    "If its head asks for a token (`ray start --head` does where it finds one), this process needs "
    "RAY_AUTH_MODE=token and that token, as the file ~/.ray/auth_token or in RAY_AUTH_TOKEN "
    "(docs/cluster.md)."
)
SHARED_MEMORY = Path("/dev/shm")
MEMORY_SHARE, DISK_SHARE = 0.3, 0.5
"""Of the machine's memory, as Ray takes by default, and of the free disk: the store's size."""

logger = logging.getLogger(__name__)


def start_ray(**options: Any) -> None:
    """Call `ray.init`, unless this process has done so, also where there is no shared memory.

    Without a `/dev/shm` that can be written `ray.init()` fails. Here the object store of the new
    cluster then lies in the directory for temporary files. To join a cluster on such a machine,
    name it by `address` or the environment variable `RAY_ADDRESS`.

    Args:
        **options: Arguments of `ray.init`.

    Raises:
        ConnectionError: If there is no cluster at the address, or one that wants a token.
    """
    if ray.is_initialized():
        return
    joins = "address" in options or bool(os.environ.get("RAY_ADDRESS"))
    needs_shared_memory = sys.platform.startswith("linux") and "_plasma_directory" not in options
    has_shared_memory = SHARED_MEMORY.is_dir() and can_write(SHARED_MEMORY)
    if needs_shared_memory and not has_shared_memory and not joins:
        options = {"address": "local", **_store_on_disk(), **options}
    try:
        ray.init(**options)
    except ConnectionError as error:
        raise ConnectionError(f"{error}. {TOKEN_HINT}") from error


def _store_on_disk() -> dict[str, Any]:
    """Arguments of `ray.init` for an object store without shared memory."""
    directory = tempfile.gettempdir()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    size = int(min(MEMORY_SHARE * memory, DISK_SHARE * shutil.disk_usage(directory).free))
    logger.warning(
        "%s cannot be written: Ray's object store (%.1f GB) is in %s, which is slower. In a "
        "container give it shared memory (docker run --shm-size).",
        SHARED_MEMORY,
        size / 1e9,
        directory,
    )
    return {"_plasma_directory": directory, "object_store_memory": size}
