"""The judge's process: runs the tests of one attempt, and alone says whether they passed.

The tests' code and the expected values are in this process only. It shares a socket with the
attempt and one with its worker, and runs under a user id of its own.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import math
import os
import socket
import sys
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prefix_rft_rllib.envs.sandbox import linux
from prefix_rft_rllib.envs.sandbox.attempt_main import import_packages
from prefix_rft_rllib.envs.sandbox.attempt_setting import AttemptSetting
from prefix_rft_rllib.envs.sandbox.channel import NO_LIMIT, Channel, ChannelClosedError
from prefix_rft_rllib.envs.sandbox.limits import SandboxLimits
from prefix_rft_rllib.envs.sandbox.remote import Attempt, AttemptFailed, TestsBroken, describe
from prefix_rft_rllib.envs.sandbox.user_ids import UserIds

_MAX_TEXT = 500
_PASSED, _FAILED = "__test_passed__", "__test_failed__"
_JUDGE_MEMORY = 2**30
_SHOWN_DIGITS = 4300
"""Integers with more digits are not shown: turning them into text takes long."""


class TestFailed(BaseException):
    """One test failed, and the others need not be run."""


def run_judge(control: socket.socket, setting: AttemptSetting) -> None:
    """Wait for a job, run its tests, report; never returns.

    Args:
        control: To the worker, which sends a descriptor (the link to the attempt) and then the
            job; the report goes back the same way.
        setting: The attempt's. The judge gets the same time, at least `_JUDGE_MEMORY`, the
            packages, and the `judge` id of its users.
    """
    channel = Channel(control, NO_LIMIT)
    nonce = ""
    try:
        linux.close_all_but(0, 1, 2, control.fileno())  # Tests may print: to nobody.
        if linux.IS_LINUX:
            linux.die_with_parent()
            linux.refuse_inspection()
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        job = channel.receive()
        nonce = job["nonce"]
        sys.set_int_max_str_digits(0)  # Of tests, as of attempts; time is limited anyhow.
        max_bytes = setting.limits.output_bytes
        link = Channel(socket.socket(fileno=descriptors[0]), max_bytes + 2**16)
        import_packages("\n".join(_sources(job)), setting.packages)
        _import_modules_of(job)
        _give_up_rights(setting.limits, setting.users)
        channel.send({**Judge(Attempt(link, max_bytes), job).run(), "nonce": nonce})
    except (ChannelClosedError, IndexError):
        pass  # The worker ended: nobody waits for a report.
    except BaseException as error:
        channel.send({"outcome": "error", "reason": describe(error), "gone": False, "nonce": nonce})
    finally:
        os._exit(0)


def _sources(job: dict[str, Any]) -> list[str]:
    return [job["setup"], job["helpers"], *job["tests"]]


def _import_modules_of(job: dict[str, Any]) -> None:
    """Import what the tests import, while the standard library can surely be read."""
    for source in _sources(job):
        with contextlib.suppress(SyntaxError, ValueError):
            for name in _imported(ast.parse(source)):
                if name.split(".")[0] in sys.stdlib_module_names:
                    importlib.import_module(name)


def _imported(tree: ast.Module) -> list[str]:
    """Return the names of the modules that a source imports."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return names


def _give_up_rights(limits: SandboxLimits, users: UserIds | None) -> None:
    for name, value in (
        ("RLIMIT_CPU", math.ceil(limits.timeout_s) + 2),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_AS", max(_JUDGE_MEMORY, limits.memory_bytes)),
    ):
        linux.limit_resource(name, value)
    if users is not None:
        linux.become_user(users.judge)
    if linux.IS_LINUX:
        linux.give_up_privileges()
        linux.refuse_inspection()
        linux.die_with_parent()  # Once more: a change of user takes it back.


@dataclass
class _Count:
    passed: int = 0
    failed: int = 0
    first_failure: str = ""
    reason: str = ""
    got: str = ""


class Judge:
    """Runs the tests of one job against one attempt.

    Args:
        attempt: The attempt, not loaded yet.
        job: Plain data: `code` and `header` (for the attempt); `setup`, `helpers` and `tests`
            (sources, for the judge); `entry_point` (an expression, or ""); `calls_check`
            (whether the tests define `check(candidate)`, which is to be called); `run_all`
            (whether to go on after a failed test).
    """

    def __init__(self, attempt: Attempt, job: dict[str, Any]):
        self._attempt = attempt
        self._job = job
        self._count = _Count()
        self._running = ""
        self._namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}

    def run(self) -> dict[str, Any]:
        """Return the report: `outcome` ("passed", "failed", "unreadable", "error") and why."""
        outcome, reason = "failed", ""
        num_tests = 1
        try:
            programs = self._compiled()
            num_tests = max(1, sum(_num_asserts(source) for source in self._job["tests"]))
            self._attempt.load(self._job["code"], self._job["header"])
            self._prepare()
            self._run_tests(programs)
            if self._attempt.failure is None and self._count.failed == 0:
                if self._count.passed == 0 and self._attempt.num_calls == 0:
                    raise TestsBroken("the tests end without a call of the attempt")
                outcome = "passed"
        except AttemptFailed as error:
            outcome = "unreadable" if error.kind == "unreadable" else "failed"
            self._test_failed(error, self._place(error))
        except TestFailed:
            pass
        except TestsBroken as error:
            outcome, reason = "error", str(error)
        except BaseException as error:
            self._test_failed(error, self._place(error))
        failure = self._attempt.failure
        if outcome in ("failed", "unreadable") and failure is not None:
            reason = failure.reason
        return self._report(outcome, reason or self._count.reason, num_tests)

    def _report(self, outcome: str, reason: str, num_tests: int) -> dict[str, Any]:
        count = self._count
        total = max(num_tests, count.passed + count.failed)
        return {
            "outcome": outcome,
            "reason": _printable(reason),
            "test": _printable(count.first_failure),
            "got": _printable(count.got),
            "gone": self._attempt.failure is not None and self._attempt.failure.kind == "gone",
            "num_passed": total if outcome == "passed" else min(count.passed, total - 1),
            "num_tests": total,
        }

    def _compiled(self) -> list[types.CodeType]:
        programs = []
        try:
            for source in self._job["tests"]:
                tree = ast.parse(source)
                _check_can_run(tree)
                tree = _AssertCounter(self._job["run_all"]).visit(tree)
                ast.fix_missing_locations(tree)
                programs.append(compile(tree, "<tests>", "exec", optimize=0))
        except (SyntaxError, ValueError, RecursionError) as error:
            raise TestsBroken(f"the tests cannot be compiled: {error}") from error
        if not any("assert" in source or "raise" in source for source in self._job["tests"]):
            raise TestsBroken("the tests hold no assertion, so that anything would pass")
        return programs

    def _prepare(self) -> None:
        """Fill the tests' globals: trusted sources first, the attempt's names last."""
        sources = [self._job["setup"], *self._job["tests"]]
        wanted, modules = _free_names(sources), _names_with_attributes(sources)
        entry_names = _free_names([self._job["entry_point"]])
        for name in sorted(entry_names | wanted):
            if name not in entry_names and name in modules & sys.stdlib_module_names:
                self._namespace[name] = importlib.import_module(name)
            elif name in entry_names or not (hasattr(builtins, name) or name.startswith("__")):
                with contextlib.suppress(NameError):
                    self._namespace[name] = self._attempt.name(name)
        own = {name: self._namespace[name] for name in entry_names & self._namespace.keys()}
        try:
            exec(compile(self._job["helpers"], "<helpers>", "exec"), self._namespace)
            exec(compile(self._job["setup"], "<setup>", "exec"), self._namespace)
        except (SyntaxError, ImportError) as error:
            raise TestsBroken(f"the setup of the tests failed: {describe(error)}") from error
        self._namespace.update(own)

    def _run_tests(self, programs: list[types.CodeType]) -> None:
        self._namespace[_PASSED] = self._test_passed
        self._namespace[_FAILED] = self._test_failed
        for program, source in zip(programs, self._job["tests"], strict=True):
            self._running = source
            try:
                exec(program, self._namespace)
            except Exception as error:
                self._test_failed(error, self._place(error))
                if not self._job["run_all"]:
                    raise TestFailed from error
        if self._job["calls_check"]:
            if "check" not in self._namespace:
                raise TestsBroken("the tests define no `check`")
            candidate = eval(self._job["entry_point"], self._namespace)
            self._namespace["check"](candidate)

    def _test_passed(self) -> None:
        self._count.passed += 1

    def _test_failed(self, error: BaseException, test: str) -> None:
        count = self._count
        count.failed += 1
        if count.failed == 1:
            count.first_failure, count.reason = test.strip(), type(error).__name__
            failure = self._attempt.failure
            with _digits_limited(), contextlib.suppress(Exception, AttemptFailed):
                count.reason = describe(error)
                count.got = "".join(map(repr, self._attempt.last_result))
            if type(error) is AssertionError and not error.args:
                count.reason = "the assertion does not hold"
            self._attempt.failure = failure  # Showing a remote value is no fault of its.

    def _place(self, error: BaseException) -> str:
        """Return the test, or of a single one its line, on which an exception arose."""
        if len(self._job["tests"]) > 1:
            return self._running
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == "<tests>"]
        lines = self._job["tests"][0].splitlines()
        number = (frames[-1].lineno or 0) if frames else 0
        return lines[number - 1] if 0 < number <= len(lines) else ""


@contextlib.contextmanager
def _digits_limited() -> Iterator[None]:
    sys.set_int_max_str_digits(_SHOWN_DIGITS)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(0)


def _printable(text: str) -> str:
    """Shorten a text, and write half characters, which no file takes, as escapes."""
    return text[:_MAX_TEXT].encode("utf-8", "backslashreplace").decode()


class _AssertCounter(ast.NodeTransformer):
    """Has every assert statement counted and, with `go_on`, the tests go on after a failure."""

    def __init__(self, go_on: bool):
        self._go_on = go_on

    def visit_Assert(self, node: ast.Assert) -> Any:
        """Follow the statement by a call, or put it into a try statement."""
        passed = ast.parse(f"{_PASSED}()").body
        if not self._go_on:
            return [ast.copy_location(statement, node) for statement in [node, *passed]]
        wrapped = ast.parse(
            f"try: pass\nexcept Exception as __error: {_FAILED}(__error, {ast.unparse(node)!r})"
        ).body[0]
        assert isinstance(wrapped, ast.Try)
        wrapped.body, wrapped.orelse = [node], passed
        return ast.copy_location(wrapped, node)


def _check_can_run(tree: ast.Module) -> None:
    """Raise `TestsBroken` for tests that would fail, or pass, whatever the attempt does."""
    for name in _imported(tree):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names and top not in sys.modules:
            raise TestsBroken(f"the tests import {top!r}, which is not there")
    for node in ast.walk(tree):
        bases = [ast.unparse(base) for base in node.bases] if type(node) is ast.ClassDef else []
        if any(base.endswith("TestCase") for base in bases):
            raise TestsBroken("the tests are methods of a TestCase, which nothing here runs")


def _num_asserts(source: str) -> int:
    return sum(type(node) is ast.Assert for node in ast.walk(ast.parse(source)))


def _free_names(sources: list[str]) -> set[str]:
    """Return the names that sources read and nowhere bind."""
    read: set[str] = set()
    bound: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Name(id=name, ctx=ast.Load()):
                    read.add(name)
                case ast.Name(id=name) | ast.arg(arg=name):
                    bound.add(name)
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    bound.add(name)
                case ast.alias(name=name, asname=other):
                    bound.add((other or name).split(".")[0])
    return read - bound


def _names_with_attributes(sources: list[str]) -> set[str]:
    """Return the names that sources use as modules are used."""
    return {
        node.value.id
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
