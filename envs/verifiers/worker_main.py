"""The nursery and its workers: run as a script by `worker_pool.py`, never imported.

Command line: `worker_main.py CONTROL_FD MEMORY_LIMIT_MB`. The nursery imports the grading
code once, writes its process id to the control socket, and then forks a worker for every
socket it is sent. It never grades, so it always answers at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import math
import os
import resource
import select
import signal
import socket
import struct
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_CONTROL_MESSAGE = struct.Struct("!cq")
_PID = struct.Struct("!q")
_LENGTH = struct.Struct("!I")
_PR_SET_PDEATHSIG = 1

Grade = Callable[[Mapping[str, Any]], dict[str, Any]]


def import_grade() -> Grade:
    """Import the grading code without running the package's own `__init__` modules.

    Those import Ray, torch and Gymnasium, which would make a start take seconds and a
    worker hundreds of MB.
    """
    folder = Path(__file__).resolve().parent
    name = ""
    for part, path in [
        ("prefix_rft_rllib", folder.parents[1]),
        ("envs", folder.parent),
        ("verifiers", folder),
    ]:
        name = f"{name}.{part}" if name else part
        shell = types.ModuleType(name)
        shell.__path__ = [str(path)]
        sys.modules[name] = shell
    from prefix_rft_rllib.envs.verifiers.math_comparison import grade

    return grade


def run_nursery(control: socket.socket, memory_limit_mb: int, grade: Grade) -> None:
    """Fork and kill workers on request until the caller is gone.

    The id of a dead worker is released (waited for) only after the caller asked to kill it,
    so that the caller may itself kill a worker by id. Never waits: a large process can take
    long to end.
    """
    caller_id = os.getppid()
    workers: set[int] = set()
    dying: set[int] = set()
    nursery_id = os.getpid()
    control.sendall(_PID.pack(nursery_id))
    while os.getppid() == caller_id:
        for process_id in list(dying):
            if os.waitpid(process_id, os.WNOHANG)[0]:
                dying.discard(process_id)
        if not select.select([control], [], [], 0.05 if dying else 1.0)[0]:
            continue
        message, fds, _, _ = socket.recv_fds(control, _CONTROL_MESSAGE.size, 1)
        while 0 < len(message) < _CONTROL_MESSAGE.size:
            rest = control.recv(_CONTROL_MESSAGE.size - len(message))
            if not rest:
                return
            message += rest
        if not message:
            return
        operation, process_id = _CONTROL_MESSAGE.unpack(message)
        if operation == b"K":
            if process_id in workers:
                os.kill(process_id, signal.SIGKILL)
                workers.discard(process_id)
                dying.add(process_id)
            continue
        worker_id = os.fork()
        if worker_id == 0:
            control.close()
            _die_with_parent(nursery_id)
            run_worker(socket.socket(fileno=fds[0]), memory_limit_mb, grade)
        os.close(fds[0])
        workers.add(worker_id)
        control.sendall(_PID.pack(worker_id))


def run_worker(link: socket.socket, memory_limit_mb: int, grade: Grade) -> None:
    """Answer jobs until the caller closes the link; never returns."""
    memory_limit = memory_limit_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    exit_code = 0
    try:
        while True:
            (length,) = _LENGTH.unpack(_receive_exactly(link, _LENGTH.size))
            job = json.loads(_receive_exactly(link, length))
            reply = json.dumps(_run_job(job, memory_limit, grade)).encode()
            link.sendall(_LENGTH.pack(len(reply)) + reply)
    except EOFError:
        pass
    except BaseException:
        exit_code = 1
    os._exit(exit_code)


def _run_job(job: Mapping[str, Any], memory_limit: int, grade: Grade) -> dict[str, Any]:
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


def _die_with_parent(parent_id: int) -> None:
    """Ask the kernel (Linux) for SIGKILL when the nursery dies."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The nursery may have died before the kernel was asked: then no signal would ever come.
    if os.getppid() != parent_id:
        os._exit(0)


def _receive_exactly(link: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = link.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _warm_up(grade: Grade) -> None:
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


def main() -> None:
    """Start the nursery on the inherited control socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    control = socket.socket(fileno=int(sys.argv[1]))
    grade = import_grade()
    _warm_up(grade)
    gc.collect()
    gc.freeze()  # Forked workers then share the imported modules' memory pages.
    run_nursery(control, int(sys.argv[2]), grade)
    # The workers get SIGKILL from the kernel as this process ends.


if __name__ == "__main__":
    main()
