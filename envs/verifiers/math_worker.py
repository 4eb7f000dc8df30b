"""The math verifier's work in a worker process: grading within a memory limit."""

from __future__ import annotations

import contextlib
import math
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefix_rft_rllib.envs.verifiers.math_comparison import grade

Job = Mapping[str, Any]


def warm_up(settings: Mapping[str, Any]) -> None:
    """Grade a few usual answers, so that workers inherit the parser's and SymPy's caches."""
    for gold, candidate in [
        (r"\frac{1}{2}", "0.5"),
        (r"3\sqrt{13}", r"\sqrt{117}"),
        ("(x+1)^2", "x^2+2x+1"),
        (r"\left(3, \frac{\pi}{2}\right)", r"(3, \pi/2)"),
        (r"\{1, 2\}", "2, 1"),
        (r"x \in [-2, 7)", "[-2,7)"),
        (r"\text{Monday}", "x = 5"),
    ]:
        grade({"operation": "compare", "gold": gold, "candidate": candidate})
    response = r"So $x = 3$. The final answer is $\boxed{4}$."
    grade({"operation": "compare_last", "gold": "5", "candidate": response})


def start_worker(settings: Mapping[str, Any]) -> Callable[[Job], dict[str, Any]]:
    """Limit the memory of this worker, `settings["memory_limit_mb"]`; return what grades."""
    memory_limit = settings["memory_limit_mb"] * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return lambda job: _run_job(job, memory_limit)


def _run_job(job: Job, memory_limit: int) -> dict[str, Any]:
    """Grade one job; what goes wrong inside becomes an ERROR verdict, never WRONG."""
    # Second line behind the caller's clock: the kernel ends a worker nobody waits for.
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime + job["timeout_s"]) + 2
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
    try:
        value = grade(job)
    except MemoryError:
        value = {"verdict": "ERROR", "detail": "memory limit"}
    except Exception as error:
        value = {"verdict": "ERROR", "detail": f"{type(error).__name__}: {error}"[:300]}
    # The libraries swallow MemoryError like any exception; the high-water mark tells.
    if _peak_address_space() > 0.9 * memory_limit:
        value = {"verdict": "ERROR", "detail": "memory limit", "retire": True}
    return value


def _peak_address_space() -> int:
    """Highest address-space size of this process in bytes; 0 where it cannot be read."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmPeak:"):
                return int(line.split()[1]) * 1024
    return 0
