"""What one attempt may use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

_MIB = 2**20
_MINIMA = {
    "timeout_s": 0.05,
    "memory_mb": 64,
    "processes": 1,
    "files": 8,
    "file_mb": 0,
    "output_kb": 1,
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
        for name, minimum in _MINIMA.items():
            value = getattr(self, name)
            kinds = (int, float) if name == "timeout_s" else (int,)
            is_number = isinstance(value, kinds) and not isinstance(value, bool)
            if not is_number or not minimum <= value < 2**31:
                what = "a number" if name == "timeout_s" else "a whole number"
                raise ValueError(f"`{name}` must be {what} of at least {minimum}, got {value!r}.")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> SandboxLimits:
        """Build the limits from plain data that holds them among other things."""
        return cls(**{name: settings[name] for name in _MINIMA if name in settings})

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
