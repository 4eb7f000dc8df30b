"""The attempt's process: runs model-written code and answers calls to it.

Nothing here is a line of defence: the code runs in this very process and may change all of it.
What counts is what the process was given before (`enter_room`, limits, user id, descriptors) and
how its messages are read on the other side.
"""

from __future__ import annotations

import builtins
import importlib.machinery
import importlib.util
import math
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from socket import socket
from types import CodeType
from typing import Any, ClassVar

from prefix_rft_rllib.envs.sandbox import landlock, linux
from prefix_rft_rllib.envs.sandbox.attempt_program import (
    UnreadableCodeError,
    compiled,
    flush_output,
    module_for,
    run_program,
)
from prefix_rft_rllib.envs.sandbox.attempt_setting import AttemptSetting
from prefix_rft_rllib.envs.sandbox.channel import NO_LIMIT, Channel, ChannelClosedError
from prefix_rft_rllib.envs.sandbox.isolation import DEVICES, library_paths
from prefix_rft_rllib.envs.sandbox.plain_data import Handle, PlainDataError, encode, value_as
from prefix_rft_rllib.envs.sandbox.system_calls import filter_system_calls
from prefix_rft_rllib.envs.sandbox.usual_names import usual_names

_LINK, _READY = 3, 4
_PLAIN_BASES: tuple[type[Any], ...] = (
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    list,
    tuple,
    set,
    frozenset,
    dict,
)
_MUTABLE = (list, dict, set, bytearray)


@dataclass(frozen=True)
class Streams:
    """Descriptors of one program: the link to its judge, and the three standard streams."""

    NAMES: ClassVar[tuple[str, ...]] = ("link", "stdin", "stdout", "stderr")

    link: int
    stdin: int
    stdout: int
    stderr: int

    def descriptors(self) -> tuple[int, ...]:
        """Return the four of them in order."""
        return astuple(self)


def run_attempt(streams: Streams, ready: int, setting: AttemptSetting) -> None:
    """Become the attempt: give everything up, then serve; never returns.

    Args:
        streams: The program's; they take their places.
        ready: Gets a byte, and is closed, just before anything of the attempt's runs.
        setting: What it gets.
    """
    exit_code = 1
    try:
        _take_streams(streams, ready)
        channel = Channel(socket(fileno=_LINK), NO_LIMIT, setting.limits.output_bytes)
        mode, code, header = channel.receive()
        import_packages(code, setting.packages)
        os.chdir(setting.directory)
        tempfile.tempdir = setting.directory
        _give_up_rights(setting)
        vars(builtins).update(exit=sys.exit, quit=sys.exit)  # `site`, left out here, has them.
        if setting.usual_imports:
            vars(builtins).update(usual_names())  # Below every name that the code itself binds.
        sys.set_int_max_str_digits(0)  # Time is limited anyhow.
        os.write(_READY, b"1")
        os.close(_READY)
        program = compiled(code, "program.py" if mode == "program" else "solution.py")
        if mode == "program":
            channel.close()
            exit_code = run_program(program)
        else:
            _Server(channel).serve(program, header)
            exit_code = 0
    except UnreadableCodeError as error:
        channel.send(("unreadable", str(error)))
    except ChannelClosedError:
        exit_code = 0
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        os._exit(exit_code)


def _take_streams(streams: Streams, ready: int) -> None:
    os.setsid()
    # Above all targets first, so that no descriptor is overwritten before it was moved.
    numbers = (*streams.descriptors(), ready)
    moved = [os.dup2(number, 100 + place) for place, number in enumerate(numbers)]
    for source, target in zip(moved, (_LINK, 0, 1, 2, _READY), strict=True):
        os.dup2(source, target)
    linux.close_all_but(0, 1, 2, _LINK, _READY)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        errors = "backslashreplace" if name == "stderr" else "surrogateescape"
        stream = open(descriptor, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def import_packages(code: str, packages: dict[str, str]) -> None:
    """Import the allowed packages that a source names: later their files may be out of reach."""
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    for name, directory in packages.items():
        if name in code and os.path.isdir(os.path.join(directory, name)):
            sys.path.append(directory)
            try:
                importlib.import_module(name)
            finally:
                sys.path.remove(directory)
    os.environ.clear()


def _give_up_rights(setting: AttemptSetting) -> None:
    """Set the limits and drop user id and capabilities; raises where that fails."""
    limits = setting.limits
    rules = None
    if setting.restricts_files:
        readable = [*library_paths(), *setting.package_paths()]
        rules = landlock.make_rules(readable, DEVICES, setting.directory)
    seconds = math.ceil(limits.timeout_s) + 1
    processes = limits.processes
    if setting.users is None and linux.IS_LINUX and setting.level == "none":
        processes += linux.num_processes_of(os.getuid())
    for name, value in (
        ("RLIMIT_CPU", seconds),
        ("RLIMIT_NPROC", processes),
        ("RLIMIT_NOFILE", limits.files),
        ("RLIMIT_FSIZE", limits.file_bytes),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_MEMLOCK", 0),
        ("RLIMIT_MSGQUEUE", 0),
        ("RLIMIT_STACK", 64 * 2**20),
        ("RLIMIT_AS", limits.memory_bytes),
    ):
        # Programs that recurse raise the limit of the stack; address space bounds it anyhow.
        hard = {"RLIMIT_CPU": value + 1, "RLIMIT_STACK": resource.RLIM_INFINITY}.get(name, value)
        linux.limit_resource(name, value, hard)
    if setting.users is not None:
        linux.become_user(setting.users.attempt)
    if linux.IS_LINUX:
        linux.give_up_privileges()
        if rules is not None:
            landlock.restrict(rules)
        if setting.filter_system_calls:
            filter_system_calls()


class _Server:
    """Answers the judge: loads the code, looks names up, calls."""

    def __init__(self, channel: Channel):
        self._channel = channel
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}  # by id(); the list keeps the objects alive
        self._module = module_for("solution")

    def serve(self, program: CodeType, header: str) -> None:
        """Load the code, then answer one request after the other until the judge is gone."""
        try:
            exec(compile(header, "header.py", "exec", dont_inherit=True), self._module.__dict__)
            exec(program, self._module.__dict__)
        except BaseException as error:
            self._reply(_raised(error))
        else:
            self._reply(("value", None, {}))
        while True:
            operation, *arguments = self._channel.receive(self._objects.__getitem__)
            try:
                answer = getattr(self, f"_{operation}")(*arguments)
            except BaseException as error:
                answer = _raised(error)
            flush_output()  # Before the answer: whoever has it may read what the call printed.
            self._reply(answer)

    def _name(self, name: str) -> tuple[Any, ...]:
        if name not in self._module.__dict__:
            return ("missing", name)
        return ("value", self._module.__dict__[name], {})

    def _builtin(self, name: str) -> tuple[Any, ...]:
        return ("value", getattr(builtins, name), {})

    def _get(self, target: Any, name: str) -> tuple[Any, ...]:
        return ("value", getattr(target, name), {})

    def _set(self, target: Any, name: str, value: Any) -> tuple[Any, ...]:
        setattr(target, name, value)
        return ("value", None, {})

    def _iter(self, target: Any) -> tuple[Any, ...]:
        items = iter(target)
        return ("value", lambda: next(items), {})

    def _next(self, step: Any) -> tuple[Any, ...]:
        try:
            return ("value", step(), {})
        except StopIteration:
            return ("end",)

    def _call(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        places = [*enumerate(args), *kwargs.items()]
        changeable = {key: value for key, value in places if type(value) in _MUTABLE}
        before = {key: self._bytes_of(value) for key, value in changeable.items()}
        result = target(*args, **kwargs)
        changed = {
            key: value
            for key, value in changeable.items()
            if self._bytes_of(value) != before[key] and type(value) in _MUTABLE
        }
        return ("value", result, changed)

    def _bytes_of(self, value: Any) -> bytes:
        return encode(value, NO_LIMIT, self._replace)

    def _reply(self, answer: tuple[Any, ...]) -> None:
        try:
            self._channel.send(answer, self._replace)
        except PlainDataError as error:
            self._channel.send(("unplain", str(error)))

    def _replace(self, value: Any) -> Any:
        """Return the plain value that an instance of a derived type holds, or a handle."""
        base_value = value_as(_PLAIN_BASES, value)
        if base_value is not None:
            return base_value
        if type(value).__module__ == "numpy" and hasattr(value, "item") and not value.shape:
            plain = value.item()
            if type(plain) is not type(value):
                return plain
        number = self._numbers.setdefault(id(value), len(self._objects))
        if number == len(self._objects):
            self._objects.append(value)
        return Handle(number)


def _raised(error: BaseException) -> tuple[Any, ...]:
    """Describe an exception by its nearest builtin type and a short message."""
    for kind in _builtin_kinds(type(error)):
        try:
            message = str(error)[:300]
        except BaseException:
            message = ""
        return ("raised", kind, message, type(error).__name__[:100])
    return ("raised", "Exception", "", type(error).__name__[:100])


def _builtin_kinds(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        if getattr(builtins, base.__name__, None) is base:
            yield base.__name__
