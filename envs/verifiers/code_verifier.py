"""The code verifier: run a problem's tests on the code of a response.

Model-written code is hostile. It runs in a process of its own that holds nothing of the tests;
what that process may see, and what else may not happen, is written down in
`docs/sandbox.md`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

from prefix_rft_rllib.basics.old_names import renamed
from prefix_rft_rllib.basics.ranges import one_of
from prefix_rft_rllib.envs.sandbox import (
    AttemptResult,
    Sandbox,
    SandboxLimits,
    SandboxSettings,
)
from prefix_rft_rllib.envs.sandbox.jobs import check_tests
from prefix_rft_rllib.envs.sandbox.output_comparison import DEFAULT_TOLERANCE
from prefix_rft_rllib.envs.sandbox.user_ids import FIRST_USER_ID
from prefix_rft_rllib.envs.verifiers.code_extraction import EXTRACTIONS, extract_code, helper_source
from prefix_rft_rllib.envs.verifiers.math_verifier import with_progress
from prefix_rft_rllib.envs.verifiers.shared_verifier import SharedVerifier
from prefix_rft_rllib.envs.verifiers.verdict import ISOLATION, Detail, Verdict

_TEXTS = ("reason", "test", "got", "output", ISOLATION)


@dataclasses.dataclass(frozen=True)
class CodeResult(AttemptResult):
    """What became of one response: `AttemptResult`, with the verdict that all verifiers have.

    Attributes:
        verdict: As for every verifier.
    """

    verdict: Verdict

    @property
    def details(self) -> dict[str, Detail]:
        """What the sample log says beside the verdict.

        `reason`, `test`, `got`, `output` and `isolation` where they are not empty; `num_passed` and
        `num_tests` of several tests: of one the verdict says it.
        """
        texts = {name: getattr(self, name) for name in _TEXTS if getattr(self, name)}
        counts = {"num_passed": self.num_passed, "num_tests": self.num_tests}
        return texts | (counts if self.num_tests > 1 else {})


def default_num_workers() -> int:
    """Return how many attempts run at a time if nobody says: one for each CPU core."""
    return os.cpu_count() or 1


class CodeVerifier(SharedVerifier):
    """Grades code responses by tests.

    All methods may be called from any thread and inside Ray actors. Use it as a context manager
    or call `close` to end its processes early (they also end with the process).

    Args:
        extract: Where the code stands. "block": in the last fenced block. "whole": it is the
            response. "block_or_whole": the response where no block is found.
        run_all: Whether tests go on after one failed, so that `passed_fraction` says more.
        tolerance: Of numbers that programs print, absolute and relative, at least 0 and below 1;
            integers are compared exactly. See `same_output`.
        usual_imports: Whether code finds the modules and members that solutions usually import
            (`math`, `Counter`, `List`, ...) where it uses them without an import.
        isolation: "auto": namespaces where the machine offers them, else none. "namespaces",
            "none": just that.
        require_isolation: Refuse to run without isolation.
        packages: Import names that attempts may use beside the standard library. Those that
            are not installed are left out.
        filter_system_calls: Have the kernel refuse what no test needs (other processes,
            sockets, signals to others, ...), where it can (Linux on x86-64 and ARM64).
        first_user_id: Where the unprivileged user ids begin, at least 1000; used as root only.
        num_workers: Attempts at a time, at least 1. Default: the number of CPU cores.
        limits: Fields of `SandboxLimits`: `timeout_s`, `memory_mb`, `processes`, ...

    Raises:
        ValueError: If an argument is unknown or outside its range.
        RuntimeError: If the workers cannot be started, or isolation is required and not offered.
    """

    def __init__(
        self,
        *,
        extract: Literal["block", "whole", "block_or_whole"] = "block",
        run_all: bool = False,
        tolerance: float = DEFAULT_TOLERANCE,
        usual_imports: bool = True,
        isolation: Literal["auto", "namespaces", "none"] = "auto",
        require_isolation: bool = False,
        packages: Sequence[str] = ("numpy",),
        filter_system_calls: bool = True,
        first_user_id: int = FIRST_USER_ID,
        num_workers: int | None = None,
        **limits: Any,
    ) -> None:
        one_of(EXTRACTIONS).check("extract", extract)
        self.refuse_unknown(limits)
        settings = SandboxSettings(
            limits=SandboxLimits(**limits),
            isolation=isolation,
            require_isolation=require_isolation,
            packages=packages,
            filter_system_calls=filter_system_calls,
            first_user_id=first_user_id,
            usual_imports=usual_imports,
            run_all=run_all,
            tolerance=tolerance,
        )
        self.extract = extract
        self.run_all = run_all
        self.tolerance = float(tolerance)
        self.limits = settings.limits
        self.num_workers = default_num_workers() if num_workers is None else num_workers
        self._sandbox = Sandbox(settings, self.num_workers)
        self.isolation = self._sandbox.isolation

    def verify(
        self,
        response: str,
        tests: Mapping[str, Any],
        entry_point: str | None = None,
        prompt: str = "",
    ) -> CodeResult:
        """Grade one response.

        Args:
            response: The whole response, decoded.
            tests: `kind` and what it needs; see `check_tests`.
            entry_point: What the tests call: a name or an expression (`Solution().add`).
            prompt: The problem's text: helpers that it defines are taken from it, not from
                the attempt.

        Returns:
            The verdict and what led to it.

        Raises:
            ValueError: If the tests or the entry point are malformed.
        """
        check_tests(tests, entry_point)
        code = extract_code(response, self.extract)
        if code is None:
            return CodeResult(Verdict.UNPARSEABLE, "the response holds no code block")
        is_program = tests["kind"] == "stdin_stdout"
        helpers = "" if is_program else helper_source(prompt, entry_point or "")
        result = self._sandbox.run_tests(code, tests, entry_point, helpers)
        return CodeResult(**{**vars(result), "verdict": Verdict(result.verdict)})

    def verify_batch(
        self, rows: Iterable[Mapping[str, Any]], progress: bool = False
    ) -> list[CodeResult]:
        """Grade many responses, `num_workers` at a time.

        Args:
            rows: Keyword arguments of `verify`, for each response.
            progress: Show a progress bar on stderr.

        Returns:
            One result for each row, in order.
        """
        rows = list(rows)
        with ThreadPoolExecutor(self.num_workers) as executor:
            results = executor.map(lambda row: self.verify(**row), rows)
            return list(with_progress(results, len(rows), progress))

    @classmethod
    def settings(cls) -> list[str]:
        """The names of its settings, those of `SandboxLimits` among them."""
        return [*super().settings(), *(field.name for field in dataclasses.fields(SandboxLimits))]

    def close(self) -> None:
        """End the processes. Using the verifier afterwards is an error."""
        self._sandbox.close()

    def __enter__(self) -> CodeVerifier:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


__getattr__ = partial(renamed, __name__)
