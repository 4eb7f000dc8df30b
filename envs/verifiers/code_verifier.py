"""The code verifier: run a problem's tests on the code of a response.

Model-written code is hostile. It runs in a process of its own that holds nothing of the tests;
what that process may see, and what else may not happen, is written down in
`docs/code_verifier.md`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from prefix_rft_rllib.basics.ranges import one_of, real, texts, whole
from prefix_rft_rllib.envs.sandbox.limits import SandboxLimits
from prefix_rft_rllib.envs.sandbox.output_comparison import DEFAULT_TOLERANCE
from prefix_rft_rllib.envs.sandbox.user_ids import FIRST_USER_ID
from prefix_rft_rllib.envs.verifiers.code_extraction import EXTRACTIONS, extract_code
from prefix_rft_rllib.envs.verifiers.code_tests import check_tests, job_of
from prefix_rft_rllib.envs.verifiers.math_verifier import with_progress
from prefix_rft_rllib.envs.verifiers.shared_verifier import SharedVerifier
from prefix_rft_rllib.envs.verifiers.verdict import ISOLATION, Detail, Verdict
from prefix_rft_rllib.envs.workers.worker_pool import PoolWork, WorkerPool

logger = logging.getLogger(__name__)

_TEXTS = ("reason", "test", "got", "output", ISOLATION)
ISOLATIONS = ("auto", "namespaces", "none")
_WORK = "prefix_rft_rllib.envs.sandbox.worker"
_TRIVIAL_TESTS = {"kind": "asserts", "asserts": ["assert x == 1"]}
_CLEAN_UP_S = 20.0
"""The worker keeps the attempt's limit; this much later it is itself taken for lost."""


@dataclasses.dataclass(frozen=True)
class CodeResult:
    """What became of one response.

    Attributes:
        verdict: As for every verifier.
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

    verdict: Verdict
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
        if self.verdict is Verdict.CORRECT:
            return 1.0
        return min(self.num_passed, self.num_tests - 1) / self.num_tests

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
        one_of(ISOLATIONS).check("isolation", isolation)
        real(0, below=1).advising("0 compares exactly.").check("tolerance", tolerance)
        if num_workers is None:
            num_workers = default_num_workers()
        whole(1).check("num_workers", num_workers)
        whole(1000).check("first_user_id", first_user_id)
        self.extract = extract
        self.run_all = run_all
        self.tolerance = float(tolerance)
        self.refuse_unknown(limits)
        self.limits = SandboxLimits(**limits)
        self.num_workers = num_workers
        settings = {
            **dataclasses.asdict(self.limits),
            "isolation": isolation,
            "packages": _package_directories(packages),
            "first_user_id": first_user_id,
            "filter_system_calls": filter_system_calls,
            "usual_imports": usual_imports,
        }
        self._pool = WorkerPool(num_workers, _pool_work(settings))
        self.isolation = self._isolation(require_isolation)

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
        if "\0" in code:
            return CodeResult(Verdict.UNPARSEABLE, "the code holds a null character")
        job = job_of(code, tests, entry_point, prompt, self.run_all, self.tolerance)
        return self._run(job)

    def _run(self, job: Mapping[str, Any]) -> CodeResult:
        result = self._pool.run(job, self.limits.timeout_s + _CLEAN_UP_S)
        if result.status != "done":
            reason = f"the worker was lost ({result.status})"
            return CodeResult(Verdict.ERROR, reason, seconds=result.seconds)
        answer = {**result.value, "verdict": Verdict(result.value["verdict"])}
        return CodeResult(**answer, seconds=result.seconds)

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
        self._pool.close()

    def __enter__(self) -> CodeVerifier:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _isolation(self, require_isolation: bool) -> str:
        """Run a trivial attempt; return the isolation it had, and say so in the log."""
        result = self._run(job_of("x = 1", _TRIVIAL_TESTS, None, "", False, 0.0))
        level = result.isolation
        # On a busy machine a very short limit may be over first; that shows no fault.
        if result.verdict not in (Verdict.CORRECT, Verdict.TIMEOUT):
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
        if require_isolation:
            self.close()
            raise RuntimeError(
                "require_isolation=True, but this machine offers attempts no namespaces "
                "(user namespaces switched off, or a container without the right): they could "
                "read files and use the network."
            )
        logger.warning(
            "Code attempts run without isolation: it is switched off, or this machine offers no "
            "namespaces. They are limited, but may %s%s (docs/code_verifier.md). "
            "require_isolation=True refuses this.",
            "see which files there are"
            if result.restricts_files
            else "read what their user may read",
            "" if result.filters_system_calls else ", use the network and start processes",
        )
        return level


def _pool_work(settings: Mapping[str, Any]) -> PoolWork:
    return PoolWork(
        module=_WORK,
        settings=settings,
        interpreter_options=("-I", "-S", "-X", "utf8"),
        environment={},
        max_jobs_per_worker=1,
    )


def _package_directories(packages: Sequence[str]) -> dict[str, str]:
    """Return for each installed package the directory that holds it."""
    texts("import names").check("packages", packages)
    found = {}
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            found[name] = str(Path(next(iter(spec.submodule_search_locations))).parent.resolve())
    return found
