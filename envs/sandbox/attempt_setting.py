"""What is decided about attempts before any of them is known."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from prefix_rft_rllib.envs.sandbox.limits import SandboxLimits
from prefix_rft_rllib.envs.sandbox.user_ids import UserIds


@dataclass(frozen=True, kw_only=True)
class AttemptSetting:
    """What every attempt of one worker gets.

    Attributes:
        level: Isolation, one of `isolation.LEVELS`.
        limits: What it may use.
        users: The ids it runs under; None if the caller is not root.
        directory: Its working directory.
        packages: Import names that it may use beside the standard library, with the directory
            that holds each.
        filter_system_calls: Whether the kernel refuses it everything it does not need.
        restricts_files: Whether the kernel refuses it files that it would not see with
            namespaces.
        usual_imports: Whether names that are usually imported are there without an import.
    """

    level: str
    limits: SandboxLimits
    users: UserIds | None
    directory: str
    packages: dict[str, str] = field(default_factory=dict)
    filter_system_calls: bool = True
    restricts_files: bool = False
    usual_imports: bool = False

    def package_paths(self) -> list[str]:
        """Return what belongs to the packages that it may use."""
        return [
            os.path.join(directory, part)
            for name, directory in self.packages.items()
            for part in (name, f"{name}.libs")
        ]
