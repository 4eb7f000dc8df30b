"""Worker processes that can be killed, for work whose run time nobody can bound.

A pool owns one *nursery*: a fresh single-threaded interpreter (`worker_main.py`, started
with `subprocess`, never by forking the caller) that imports the slow libraries once and
then forks a worker whenever one is needed. A replaced worker therefore costs
milliseconds, and the caller may be multi-threaded, a Ray actor or a daemonic process.

Lifetimes: the nursery ends when its control socket closes or its parent changes, and
kills its workers; a worker gets a kill signal from the kernel when the nursery dies. So
no worker outlives the caller, whatever it is computing and however the caller ended.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import logging
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

logger = logging.getLogger(__name__)

_WORKER_MAIN = Path(__file__).with_name("worker_main.py")
_START_LIMIT_S = 120.0
_CONTROL_MESSAGE = struct.Struct("!cq")  # b"F" fork (a socket travels along), b"K" kill pid
_PID = struct.Struct("!q")
_LENGTH = struct.Struct("!I")


@dataclasses.dataclass(frozen=True)
class JobResult:
    """What became of one job.

    Attributes:
        status: "done" (the worker answered), "timeout" (it was killed at the limit) or
            "crashed" (it died, or could not be started).
        value: The worker's answer if `status` is "done", else an empty dict.
        seconds: Wall-clock seconds from handing the job over to the result.
    """

    status: Literal["done", "timeout", "crashed"]
    value: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoolWork:
    """What the workers of a pool do.

    Attributes:
        module: Import path of a module with `warm_up(settings)`, called once before any worker
            is forked, and `start_worker(settings)`, called in each new worker, which returns
            the function from job to answer.
        settings: Plain data that JSON can hold, for both.
        interpreter_options: Of the Python interpreter that workers are forked from.
        environment: Its environment variables; None for the caller's.
        max_jobs_per_worker: A worker is replaced after this many jobs.
    """

    module: str
    settings: Mapping[str, Any]
    interpreter_options: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None
    max_jobs_per_worker: int = 2000


@dataclasses.dataclass
class _Worker:
    """One worker process as the caller sees it."""

    process_id: int
    link: socket.socket
    num_jobs: int = 0

    def has_ended(self) -> bool:
        """True if the process is gone, of an idle worker."""
        try:
            self.link.settimeout(0)
            return self.link.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


class _Nursery:
    """The process that forks workers on demand. Not thread-safe; the pool holds a lock."""

    def __init__(self, work: PoolWork) -> None:
        # -P: the script's folder is no place to import from, whatever its modules are called.
        command = [sys.executable, "-P", *work.interpreter_options, str(_WORKER_MAIN)]
        ours, theirs = socket.socketpair()
        ours.settimeout(_START_LIMIT_S)
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), work.module, json.dumps(dict(work.settings))],
                env=work.environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is the caller's to handle.
            )
        finally:
            theirs.close()
        self._control = ours
        try:
            _receive_exactly(ours, _PID.size)
        except OSError as error:
            self.close()
            raise RuntimeError(
                f"the verifier's worker process ({work.module}) did not start with "
                f"{sys.executable!r}; are its libraries installed for this interpreter?"
            ) from error

    @property
    def process_id(self) -> int:
        return self._process.pid

    def fork_worker(self) -> _Worker:
        ours, theirs = socket.socketpair()
        try:
            message = _CONTROL_MESSAGE.pack(b"F", 0)
            socket.send_fds(self._control, [message], [theirs.fileno()])
            (process_id,) = _PID.unpack(_receive_exactly(self._control, _PID.size))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return _Worker(process_id, ours)

    def bury_worker(self, worker: _Worker) -> None:
        """Have a worker killed, if it still runs, and its process id released."""
        with contextlib.suppress(OSError):
            self._control.sendall(_CONTROL_MESSAGE.pack(b"K", worker.process_id))

    def close(self) -> None:
        self._control.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Drop the connection in a forked copy of the caller; the nursery is not ours."""
        self._control.close()


class WorkerPool:
    """A fixed number of killable workers, shared by any number of threads.

    The constructor returns when the first workers are ready, so that no job pays for the
    start. After a fork of the calling process the copy builds its own workers on first use.

    Args:
        num_workers: Jobs that may run at the same time, at least 1.
        work: What they do.

    Raises:
        RuntimeError: If the worker process cannot be started.
    """

    def __init__(self, num_workers: int, work: PoolWork) -> None:
        self._num_workers = num_workers
        self._work = work
        self._closed = False
        self._set_up()
        _open_pools.add(self)

    def _set_up(self) -> None:
        self._owner_process_id = os.getpid()
        self._lock = threading.Lock()
        self._free_slots = threading.Semaphore(self._num_workers)
        self._nursery: _Nursery | None = _Nursery(self._work)
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        # One more than may run: after a kill the next job need not wait for the replacement.
        for _ in range(self._num_workers + 1):
            self._idle.put(self._nursery.fork_worker())

    def run(self, job: Mapping[str, Any], timeout_s: float) -> JobResult:
        """Run one job; waits for a free worker first.

        Args:
            job: Plain data that JSON can hold.
            timeout_s: Wall-clock seconds the worker may take, counted from the moment it
                is handed the job.

        Returns:
            The result. Never raises because of what the job does.

        Raises:
            RuntimeError: If the pool is closed.
        """
        if self._owner_process_id != os.getpid():
            self._start_again_after_fork()
        if self._closed:
            raise RuntimeError("this verifier is closed; create a new one")
        payload = json.dumps({**job, "timeout_s": timeout_s}).encode()
        with self._free_slots:
            worker = self._take_worker()
            result = JobResult("crashed")
            try:
                if worker is not None:
                    result = _exchange(worker.link, payload, timeout_s)
                    worker.num_jobs += 1
            finally:
                self._give_back(worker, result)
        return result

    def _take_worker(self) -> _Worker | None:
        """Return a living idle worker, or None if none can be started."""
        while (worker := self._idle.get()) is not None and worker.has_ended():
            self._give_back(worker, JobResult("crashed"))
        return worker

    def _give_back(self, worker: _Worker | None, result: JobResult) -> None:
        """Return a worker to the idle ones, or replace it without delaying the verdict."""
        if worker is not None:
            is_fresh = worker.num_jobs < self._work.max_jobs_per_worker
            if result.status == "done" and is_fresh and not result.value.get("retire", False):
                self._idle.put(worker)
                return
            if result.status == "timeout":
                # Its id is still its own: the nursery releases ids of buried workers only.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.process_id, signal.SIGKILL)
            worker.link.close()
        try:
            threading.Thread(target=self._replace, args=(worker,), daemon=True).start()
        except RuntimeError:  # No threads can be started while the interpreter shuts down.
            self._idle.put(None)

    def _replace(self, worker: _Worker | None) -> None:
        """Bury a worker and put a new one among the idle ones; None if that fails."""
        with self._lock:
            if worker is not None and self._nursery is not None:
                self._nursery.bury_worker(worker)
        fresh = self._fork_worker()
        with self._lock:
            if self._closed and fresh is not None:
                fresh.link.close()
                fresh = None
            self._idle.put(fresh)

    def _fork_worker(self) -> _Worker | None:
        """Return a new worker, starting another nursery if ours has died."""
        with self._lock:
            for _ in range(2):
                if self._closed:
                    return None
                try:
                    if self._nursery is None:
                        self._nursery = _Nursery(self._work)
                    return self._nursery.fork_worker()
                except (OSError, RuntimeError):
                    logger.warning("the verifier's nursery process was lost; starting another")
                    if self._nursery is not None:
                        self._nursery.close()
                        self._nursery = None
        return None

    def _start_again_after_fork(self) -> None:
        if self._nursery is not None:
            self._nursery.forget()
        self._set_up()

    def close(self) -> None:
        """End all processes. A second call does nothing."""
        if self._closed or self._owner_process_id != os.getpid():
            return
        self._closed = True
        with self._lock:
            if self._nursery is not None:
                self._nursery.close()
                self._nursery = None
            with self._idle.mutex:
                idle = self._idle.queue.copy()
                self._idle.queue.clear()
        for worker in idle:
            if worker is not None:
                worker.link.close()
            self._idle.put(None)  # For a thread that waits for a worker just now.


def _exchange(link: socket.socket, payload: bytes, timeout_s: float) -> JobResult:
    """Send one job and wait for its answer, at most `timeout_s` seconds in all."""
    begin = time.monotonic()
    deadline = begin + timeout_s
    try:
        link.settimeout(timeout_s)
        link.sendall(_LENGTH.pack(len(payload)) + payload)
        (length,) = _LENGTH.unpack(_receive_exactly(link, _LENGTH.size, deadline))
        value = json.loads(_receive_exactly(link, length, deadline))
    except TimeoutError:
        return JobResult("timeout", seconds=time.monotonic() - begin)
    except (OSError, ValueError):
        return JobResult("crashed", seconds=time.monotonic() - begin)
    return JobResult("done", value, time.monotonic() - begin)


def _receive_exactly(link: socket.socket, size: int, deadline: float | None = None) -> bytes:
    data = bytearray()
    while len(data) < size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            link.settimeout(left)
        piece = link.recv(size - len(data))
        if not piece:
            raise ConnectionError("the other side closed the connection")
        data += piece
    return bytes(data)


_open_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


@atexit.register
def _close_open_pools() -> None:
    for pool in list(_open_pools):
        pool.close()
