"""Running programs that nobody trusts: limits, isolation, and a judge they cannot reach.

`run_tests` is the door; `docs/sandbox.md` draws the processes and says what each may see. The room
imports the standard library and `envs/workers/` only, and its processes run nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefix_rft_rllib.envs.sandbox.limits import SandboxLimits
from prefix_rft_rllib.envs.sandbox.sandbox import AttemptResult, Sandbox, SandboxSettings

__all__ = ["AttemptResult", "Sandbox", "SandboxLimits", "SandboxSettings", "run_tests"]


def run_tests(
    code: str,
    tests: Mapping[str, Any],
    entry_point: str | None = None,
    *,
    settings: SandboxSettings | None = None,
) -> AttemptResult:
    """Run tests on code that nobody trusts, in a sandbox that is made for it and ended after it.

    Making one takes a fraction of a second; for many attempts keep a `Sandbox`.

    Args:
        code: The attempt, Python.
        tests: `{"kind": "asserts", "asserts": ["assert add(1, 2) == 3"]}`, or `{"kind":
            "stdin_stdout", "cases": [{"input": "1 2", "output": "3"}]}` for a program; see
            `docs/code_verifier.md` for all kinds.
        entry_point: What the tests call: a name or an expression (`Solution().add`).
        settings: Limits, isolation, packages; None for the defaults.

    Returns:
        The verdict and what led to it. Never raises because of what the attempt does.

    Raises:
        ValueError: If the tests or the entry point are malformed.
        RuntimeError: If the sandbox cannot be made, or isolation is required and not offered.
    """
    with Sandbox(settings or SandboxSettings()) as sandbox:
        return sandbox.run_tests(code, tests, entry_point)
