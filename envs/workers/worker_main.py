"""The nursery and its workers: run as a script by `worker_pool.py`, never imported.

Command line: `worker_main.py CONTROL_FD MODULE SETTINGS_JSON`. MODULE is the import path of the
work: its `warm_up(settings)` runs once, its `start_worker(settings)` in every new worker and
returns the function from job to answer. The nursery writes its process id to the control socket
and then forks a worker for every socket it is sent. It never works, so it always answers at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import struct
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_CONTROL_MESSAGE = struct.Struct("!cq")
_PID = struct.Struct("!q")
_LENGTH = struct.Struct("!I")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

Settings = Mapping[str, Any]
Work = Callable[[Mapping[str, Any]], dict[str, Any]]
StartWorker = Callable[[Settings], Work]


def import_work(module: str) -> types.ModuleType:
    """Import the work without running the `__init__` modules of the packages that it lies in.

    Those import Ray, torch and Gymnasium, which would make a start take seconds and a
    worker hundreds of MB. Rooms that the work does not lie in are imported as usual.
    """
    top, *rooms = module.split(".")[:-1]
    around = Path(__file__).resolve().parents[2]  # Here `envs` lies.
    # In a source tree that is beside the package's other rooms, not among them.
    paths = [around, around / top]
    name = top
    _add_shell(name, paths)
    for room in rooms:
        paths = [path / room for path in paths]
        name = f"{name}.{room}"
        _add_shell(name, paths)
    return importlib.import_module(module)


def _add_shell(name: str, paths: list[Path]) -> None:
    """Put a package into `sys.modules` whose `__init__` has not run."""
    shell = types.ModuleType(name)
    shell.__path__ = [str(path) for path in paths if path.is_dir()]
    sys.modules[name] = shell


def run_nursery(control: socket.socket, start_worker: StartWorker, settings: Settings) -> None:
    """Fork and kill workers on request until the caller is gone.

    The id of a dead worker is released (waited for) only after the caller asked to kill it,
    so that the caller may itself kill a worker by id. Never waits: a large process can take
    long to end.
    """
    caller_id = os.getppid()
    workers: set[int] = set()
    dying: set[int] = set()
    nursery_id = os.getpid()
    _adopt_orphans()
    control.sendall(_PID.pack(nursery_id))
    while os.getppid() == caller_id:
        for process_id in list(dying):
            if os.waitpid(process_id, os.WNOHANG)[0]:
                dying.discard(process_id)
        _release_orphans(workers | dying)
        if not select.select([control], [], [], 0.05 if dying else 1.0)[0]:
            continue
        message, fds, _, _ = socket.recv_fds(control, _CONTROL_MESSAGE.size, 1)
        while 0 < len(message) < _CONTROL_MESSAGE.size:
            rest = control.recv(_CONTROL_MESSAGE.size - len(message))
            if not rest:
                break
            message += rest
        if len(message) < _CONTROL_MESSAGE.size:
            break
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
            run_worker(socket.socket(fileno=fds[0]), start_worker, settings)
        os.close(fds[0])
        workers.add(worker_id)
        control.sendall(_PID.pack(worker_id))
    _end_children(workers)


def _release_orphans(known: set[int]) -> None:
    """Release the ids of ended processes that a worker left behind."""
    if not hasattr(os, "waitid"):  # macOS, where this process gets no orphans.
        return
    with contextlib.suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in known:
                break  # Whoever stands behind it has to wait until it is buried.
            os.waitpid(ended.si_pid, 0)


def _end_children(workers: set[int]) -> None:
    """Kill the workers and wait for them and for the orphans they leave, a few seconds at most."""
    for process_id in workers:
        os.kill(process_id, signal.SIGKILL)
    end = time.monotonic() + 3.0
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < end:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.005)


def run_worker(link: socket.socket, start_worker: StartWorker, settings: Settings) -> None:
    """Answer jobs until the caller closes the link; never returns."""
    exit_code = 0
    try:
        work = start_worker(settings)
        while True:
            (length,) = _LENGTH.unpack(_receive_exactly(link, _LENGTH.size))
            job = json.loads(_receive_exactly(link, length))
            reply = json.dumps(work(job)).encode()
            link.sendall(_LENGTH.pack(len(reply)) + reply)
    except EOFError:
        pass
    except BaseException:
        exit_code = 1
    os._exit(exit_code)


def _adopt_orphans() -> None:
    """Ask the kernel (Linux) for the children that workers leave behind."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


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


def main() -> None:
    """Start the nursery on the inherited control socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    control = socket.socket(fileno=int(sys.argv[1]))
    work, settings = import_work(sys.argv[2]), json.loads(sys.argv[3])
    work.warm_up(settings)
    gc.collect()
    gc.freeze()  # Forked workers then share the imported modules' memory pages.
    run_nursery(control, work.start_worker, settings)


if __name__ == "__main__":
    main()
