"""A sandbox for attempts: worker processes, and what is known of each attempt afterwards."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

from prefix_rft_rllib.envs.sandbox.jobs import check_tests, job_of
from prefix_rft_rllib.envs.sandbox.limits import SandboxLimits
from prefix_rft_rllib.envs.sandbox.output_comparison import DEFAULT_TOLERANCE
from prefix_rft_rllib.envs.sandbox.user_ids import FIRST_USER_ID
from prefix_rft_rllib.envs.workers.worker_pool import PoolWork, WorkerPool

logger = logging.getLogger(__name__)

ISOLATIONS = ("auto", "namespaces", "none")
_WORK = "prefix_rft_rllib.envs.sandbox.worker"
_TRIVIAL_TESTS = {"kind": "asserts", "asserts": ["assert x == 1"]}
_CLEAN_UP_S = 20.0
"""The worker keeps the attempt's limit; this much later it is itself taken for lost."""


@dataclasses.dataclass(frozen=True)
class AttemptResult:
    """What became of one attempt.

    Attributes:
        verdict: "CORRECT": every test passed. "WRONG": one did not. "UNPARSEABLE": the code cannot
            be compiled. "TIMEOUT": it was not done in time. "ERROR": the tests or the sandbox
            failed, whatever the code is worth.
        reason: Why it is not CORRECT, in words.
        test: The first test that failed.
        got: What the attempt returned or printed there, shortened.
        output: The end of what it printed, shortened.
        num_passed: Tests that passed before the run ended.
        num_tests: Tests that there are; 1 where the run ended before they were counted.
        isolation: "namespaces" or "none"; "" where nothing was run.
        filters_system_calls: Whether the kernel filtered the attempt's system calls.
        restricts_files: Whether the kernel kept the machine's files from the attempt.
        seconds: Wall-clock seconds from the attempt's start to its verdict.
    """

    verdict: str
    reason: str = ""
    test: str = ""
    got: str = ""
    output: str = ""
    num_passed: int = 0
    num_tests: int = 1
    isolation: str = ""
    filters_system_calls: bool = False
    restricts_files: bool = False
    seconds: float = 0.0

    @property
    def passed_fraction(self) -> float:
        """Share of the tests that passed, in [0, 1]; 1 for CORRECT only."""
        if self.verdict == "CORRECT":
            return 1.0
        return min(self.num_passed, self.num_tests - 1) / self.num_tests


@dataclasses.dataclass(frozen=True, kw_only=True)
class SandboxSettings:
    """How attempts are run.

    Attributes:
        limits: What one attempt may use.
        isolation: "auto": namespaces where the machine offers them, else none. "namespaces",
            "none": just that.
        require_isolation: Refuse to run without isolation.
        packages: Import names that attempts may use beside the standard library. Those that are
            not installed are left out.
        filter_system_calls: Have the kernel refuse what no test needs, where it can.
        first_user_id: Where the unprivileged user ids begin, at least 1000; used as root only.
        usual_imports: Whether code finds the modules and members that solutions usually import
            where it uses them without an import.
        run_all: Whether tests go on after one failed.
        tolerance: Of numbers that programs print, at least 0 and below 1; see `same_output`.

    Raises:
        ValueError: If a setting is unknown or outside its range.
    """

    limits: SandboxLimits = dataclasses.field(default_factory=SandboxLimits)
    isolation: Literal["auto", "namespaces", "none"] = "auto"
    require_isolation: bool = False
    packages: Sequence[str] = ("numpy",)
    filter_system_calls: bool = True
    first_user_id: int = FIRST_USER_ID
    usual_imports: bool = True
    run_all: bool = False
    tolerance: float = DEFAULT_TOLERANCE

    def __post_init__(self) -> None:
        if self.isolation not in ISOLATIONS:
            known = ", ".join(map(repr, ISOLATIONS))
            raise ValueError(f"`isolation` must be one of {known}, got {self.isolation!r}.")
        _check_at_least("first_user_id", self.first_user_id, 1000)
        if isinstance(self.packages, str) or not all(isinstance(n, str) for n in self.packages):
            raise ValueError(f"`packages` must be a list of import names, got {self.packages!r}.")
        value = self.tolerance
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not (is_number and 0 <= value < 1):
            raise ValueError(f"`tolerance` must be in [0, 1), got {value!r}. 0 compares exactly.")

    def of_workers(self) -> dict[str, Any]:
        """Plain data for `worker.warm_up`."""
        return {
            **dataclasses.asdict(self.limits),
            "isolation": self.isolation,
            "packages": _package_directories(self.packages),
            "first_user_id": self.first_user_id,
            "filter_system_calls": self.filter_system_calls,
            "usual_imports": self.usual_imports,
        }


class Sandbox:
    """Runs any number of attempts, each in processes of its own, from any thread.

    Use it as a context manager or call `close` to end its processes early (they also end with the
    process).

    Attributes:
        isolation: What attempts have here, "namespaces" or "none".

    Args:
        settings: How attempts are run.
        num_workers: Attempts at a time, at least 1.

    Raises:
        ValueError: If `num_workers` is below 1.
        RuntimeError: If the workers cannot be started, or isolation is required and not offered.
    """

    def __init__(self, settings: SandboxSettings, num_workers: int = 1) -> None:
        _check_at_least("num_workers", num_workers, 1)
        self._settings = settings
        self._pool = WorkerPool(num_workers, _pool_work(settings))
        self.isolation = self._isolation()

    def run_tests(
        self, code: str, tests: Mapping[str, Any], entry_point: str | None = None, helpers: str = ""
    ) -> AttemptResult:
        """Run tests on one attempt.

        Args:
            code: Of the attempt.
            tests: `kind` and what it needs; see `check_tests`.
            entry_point: What the tests call: a name or an expression (`Solution().add`).
            helpers: Functions that the tests may use and that are not taken from the attempt.

        Returns:
            The verdict and what led to it. Never raises because of what the attempt does.

        Raises:
            ValueError: If the tests or the entry point are malformed.
        """
        check_tests(tests, entry_point)
        if "\0" in code:
            return AttemptResult("UNPARSEABLE", "the code holds a null character")
        settings = self._settings
        job = job_of(code, tests, entry_point, helpers)
        job |= {"run_all": settings.run_all, "tolerance": float(settings.tolerance)}
        result = self._pool.run(job, settings.limits.timeout_s + _CLEAN_UP_S)
        if result.status != "done":
            reason = f"the worker was lost ({result.status})"
            return AttemptResult("ERROR", reason, seconds=result.seconds)
        return AttemptResult(**result.value, seconds=result.seconds)

    def close(self) -> None:
        """End the processes. Using the sandbox afterwards is an error."""
        self._pool.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _isolation(self) -> str:
        """Run a trivial attempt; return the isolation it had, and say so in the log."""
        result = self.run_tests("x = 1", _TRIVIAL_TESTS)
        level = result.isolation
        # On a busy machine a very short limit may be over first; that shows no fault.
        if result.verdict not in ("CORRECT", "TIMEOUT"):
            self.close()
            raise RuntimeError(
                f"the code sandbox does not work here: {result.reason or result.verdict}"
            )
        if level != "none":
            filtered = "" if result.filters_system_calls else "not "
            logger.info(
                "Code attempts run isolated (%s), system calls are %sfiltered.", level, filtered
            )
            return level
        if self._settings.require_isolation:
            self.close()
            raise RuntimeError(
                "require_isolation=True, but this machine offers attempts no namespaces "
                "(user namespaces switched off, or a container without the right): they could "
                "read files and use the network."
            )
        logger.warning(
            "Code attempts run without isolation: it is switched off, or this machine offers no "
            "namespaces. They are limited, but may %s%s (docs/sandbox.md). "
            "require_isolation=True refuses this.",
            "see which files there are"
            if result.restricts_files
            else "read what their user may read",
            "" if result.filters_system_calls else ", use the network and start processes",
        )
        return level


def _pool_work(settings: SandboxSettings) -> PoolWork:
    return PoolWork(
        module=_WORK,
        settings=settings.of_workers(),
        interpreter_options=("-I", "-S", "-X", "utf8"),
        environment={},
        max_jobs_per_worker=1,
    )


def _package_directories(packages: Sequence[str]) -> dict[str, str]:
    """Return for each installed package the directory that holds it."""
    found = {}
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            found[name] = str(Path(next(iter(spec.submodule_search_locations))).parent.resolve())
    return found


def _check_at_least(name: str, value: Any, least: int) -> None:
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or value < least:
        raise ValueError(f"`{name}` must be a whole number of at least {least}, got {value!r}.")
