r"""Speed of the code verifier, what it leaves behind, and how late its verdicts are under load.

How to run:

    python benchmarks/code_verifier.py throughput --out throughput.csv
    python benchmarks/code_verifier.py load --out load.csv

`throughput` runs generated attempts (right, wrong, crashing, and programs on standard input)
through the pool and compares them with as many starts of a bare `python -c pass`, taken in turns
with them so that both meet the same machine. It then counts what is left: processes, open
descriptors, temporary files. Its exit code is 1 if anything is.

`load` keeps 8 times as many callers waiting as there are workers, every fourth attempt one that
never ends, and writes the time from an attempt's start to its verdict (without queueing) as
percentiles. Its exit code is 1 if the 99.9th is above the limit + 0.5 s.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import csv
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prefix_rft_rllib.envs.verifiers.code_verifier import CodeResult, CodeVerifier

CALLS = {"kind": "asserts", "asserts": ["assert f(3) == 10", "assert f(7) == 50"]}
PROGRAM = {"kind": "stdin_stdout", "cases": [{"input": "3\n", "output": "10\n"}]}
ATTEMPTS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("def f(x):\n    return x * x + 1", CALLS),
    ("def f(x):\n    return x + 7", CALLS),
    ("import os\ndef f(x):\n    os._exit(0)", CALLS),
    ("print(int(input()) ** 2 + 1)", PROGRAM),
)
ENDLESS = "def f(x):\n    while True:\n        pass"
FIRST_USER_ID = 55_000
"""Of this benchmark's sandboxes only."""

BLOCKS = 10
"""Turns that the attempts and the bare interpreters take."""


def rows_of(number: int, with_endless: bool) -> list[dict[str, Any]]:
    """Return arguments of `verify` for a number of attempts."""
    rows = []
    for index in range(number):
        code, tests = ATTEMPTS[index % len(ATTEMPTS)]
        if with_endless and index % 4 == 1:
            code, tests = ENDLESS, CALLS
        rows.append({"response": code, "tests": tests, "entry_point": "f"})
    return rows


def bare_starts(number: int, num_workers: int) -> None:
    """Start Python that many times, several at a time."""

    def start(_: int) -> None:
        subprocess.run([sys.executable, "-c", "pass"], check=True)

    with ThreadPoolExecutor(num_workers) as executor:
        list(executor.map(start, range(number)))


def leftovers(files_before: set[str]) -> dict[str, int]:
    """Count processes of this benchmark's sandboxes, and temporary files not there before."""
    return {"processes": num_sandbox_processes(), "files": len(temporary_files() - files_before)}


def num_sandbox_processes() -> int:
    """Return the number of processes, dead ones too, of this benchmark's sandboxes."""
    marker = f'"first_user_id": {FIRST_USER_ID}'.encode()
    ids = range(FIRST_USER_ID, FIRST_USER_ID + 5000)
    found = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            user_id = (path / "status").read_text().partition("Uid:")[2].split()[0]
            found += int(user_id) in ids or marker in (path / "cmdline").read_bytes()
        except OSError:
            continue
    return found


def temporary_files() -> set[str]:
    """Return the names of attempts' directories, and of files under their user ids."""
    directories = (tempfile.gettempdir(), "/dev/shm", "/var/tmp")
    ids = range(FIRST_USER_ID, FIRST_USER_ID + 5000)
    found = set()
    for directory in filter(os.path.isdir, directories):
        for entry in os.scandir(directory):
            with contextlib.suppress(OSError):
                is_named = os.getuid() != 0 and entry.name.startswith("prefix_rft_attempt_")
                if is_named or entry.stat(follow_symlinks=False).st_uid in ids:
                    found.add(entry.path)
    return found


def num_descriptors() -> int:
    """Return the number of open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def run_throughput(options: argparse.Namespace) -> int:
    """Measure attempts and bare starts in turns; report what is left over."""
    files, descriptors = temporary_files(), num_descriptors()
    results: list[CodeResult] = []
    attempt_s = bare_s = 0.0
    per_block = options.num_attempts // BLOCKS
    with verifier_of(options) as verifier:
        for _ in range(BLOCKS):
            begin = time.perf_counter()
            results += verifier.verify_batch(rows_of(per_block, with_endless=False))
            middle = time.perf_counter()
            bare_starts(per_block, options.workers)
            attempt_s += middle - begin
            bare_s += time.perf_counter() - middle
        isolation = verifier.isolation
    time.sleep(1.0)
    left = {**leftovers(files), "descriptors": num_descriptors() - descriptors}
    counts = collections.Counter(str(result.verdict) for result in results)
    number = len(results)
    row = {
        "isolation": isolation,
        "cores": len(os.sched_getaffinity(0)),
        "workers": options.workers,
        "attempts": number,
        "attempts_per_second": f"{number / attempt_s:.1f}",
        "bare_starts_per_second": f"{number / bare_s:.1f}",
        "overhead_ms": f"{1000 * options.workers * (attempt_s - bare_s) / number:.1f}",
        **percentiles([result.seconds for result in results]),
        **{f"leaked_{name}": count for name, count in left.items()},
        "python": platform.python_version(),
    }
    print(dict(counts))
    write(row, options.out)
    return 1 if any(left.values()) or counts["ERROR"] else 0


def run_load(options: argparse.Namespace) -> int:
    """Measure how late verdicts are while many callers wait."""
    rows = rows_of(options.num_attempts, with_endless=True)
    with verifier_of(options) as verifier:
        with ThreadPoolExecutor(options.factor * options.workers) as executor:
            results = list(executor.map(lambda row: verifier.verify(**row), rows))
        isolation = verifier.isolation
    seconds = [result.seconds for result in results]
    counts = collections.Counter(str(result.verdict) for result in results)
    row = {
        "isolation": isolation,
        "workers": options.workers,
        "callers": options.factor * options.workers,
        "attempts": len(results),
        "limit_s": options.timeout,
        **percentiles(seconds),
        "later_than_limit_plus_half": sum(s > options.timeout + 0.5 for s in seconds),
        "python": platform.python_version(),
    }
    print(dict(counts))
    write(row, options.out)
    return 1 if float(row["p99.9_ms"]) > 1000 * (options.timeout + 0.5) else 0


def verifier_of(options: argparse.Namespace) -> CodeVerifier:
    """Return the verifier under test."""
    return CodeVerifier(
        extract="whole",
        isolation=options.isolation,
        num_workers=options.workers,
        timeout_s=options.timeout,
        first_user_id=FIRST_USER_ID,
    )


def percentiles(seconds: Sequence[float]) -> dict[str, str]:
    """Return quantiles in milliseconds."""
    ordered = sorted(seconds)
    return {
        f"{name}_ms": f"{1000 * ordered[int(quantile * (len(ordered) - 1))]:.1f}"
        for name, quantile in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))
    }


def write(row: Mapping[str, Any], path: Path | None) -> None:
    """Print a row, and append it to a CSV file."""
    print("  " + ", ".join(f"{name}={value}" for name, value in row.items()))
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def main() -> int:
    """Run the chosen benchmark; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--isolation", default="auto", choices=["auto", "namespaces", "none"])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, timeout in (("throughput", 10.0), ("load", 0.5)):
        command = commands.add_parser(name)
        command.add_argument("--num-attempts", type=int, default=2000)
        command.add_argument("--timeout", type=float, default=timeout)
        command.add_argument("--out", type=Path, help="CSV file to append to")
    commands.choices["load"].add_argument("--factor", type=int, default=8)
    options = parser.parse_args()
    return run_throughput(options) if options.command == "throughput" else run_load(options)


if __name__ == "__main__":
    sys.exit(main())
