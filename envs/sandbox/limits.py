"""What one attempt may use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from prefix_rft_rllib.basics.ranges import real, whole

_MIB = 2**20
_MOST = 2**31 - 1
_RANGES = {
    "timeout_s": real(0.05, _MOST),
    "memory_mb": whole(64, _MOST),
    "processes": whole(1, _MOST),
    "files": whole(8, _MOST),
    "file_mb": whole(0, _MOST),
    "output_kb": whole(1, _MOST),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SandboxLimits:
    """Limits of one attempt, all of its processes and test cases together unless noted.

    Attributes:
        timeout_s: Wall-clock seconds from the start of the attempt to its end. CPU seconds of
            one process are limited to the next whole second above, plus one.
        memory_mb: Address space of one process in MiB.
        processes: Processes and threads at a time.
        files: Open files of one process.
        file_mb: Size of one file, and of the temporary directory where it is a file system of
            its own, in MiB.
        output_kb: What one program may print, and what one call may return, in KiB.

    Raises:
        ValueError: If a limit is below its minimum or no number.
    """

    timeout_s: float = 10.0
    memory_mb: int = 1024
    processes: int = 16
    files: int = 64
    file_mb: int = 16
    output_kb: int = 4096

    def __post_init__(self) -> None:
        for name, allowed in _RANGES.items():
            allowed.check(name, getattr(self, name))

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> SandboxLimits:
        """Build the limits from plain data that holds them among other things."""
        return cls(**{name: settings[name] for name in _RANGES if name in settings})

    @property
    def memory_bytes(self) -> int:
        """`memory_mb` in bytes."""
        return self.memory_mb * _MIB

    @property
    def file_bytes(self) -> int:
        """`file_mb` in bytes."""
        return self.file_mb * _MIB

    @property
    def output_bytes(self) -> int:
        """`output_kb` in bytes."""
        return self.output_kb * 1024
