"""Watching over one attempt: its clock, its output, and which verdict follows."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from prefix_rft_rllib.envs.sandbox.channel import NO_LIMIT, Channel, ChannelClosedError
from prefix_rft_rllib.envs.sandbox.keeper import SETUP_FAILED, Keeper
from prefix_rft_rllib.envs.sandbox.limits import SandboxLimits
from prefix_rft_rllib.envs.sandbox.output_comparison import same_output
from prefix_rft_rllib.envs.sandbox.plain_data import PlainDataError
from prefix_rft_rllib.envs.sandbox.program import Program, TooMuchOutputError

_SHOWN = 1000
_NUM_SHOWN_CHARACTERS = 200
_EXIT_S = 0.2
_VERDICTS = {
    "passed": "CORRECT",
    "failed": "WRONG",
    "unreadable": "UNPARSEABLE",
    "error": "ERROR",
}


class _OutOfTimeError(Exception):
    pass


class SetupError(Exception):
    """The attempt's process could not be set up."""


class Supervision:
    """Runs the job of one attempt against the clock.

    Args:
        keeper: Starts the attempt's programs.
        judge: To the judge's process, which waits for its job.
        limits: Of the attempt.
    """

    def __init__(self, keeper: Keeper, judge: socket.socket, limits: SandboxLimits):
        self._keeper = keeper
        self._judge = judge
        self._limits = limits
        self._deadline = 0.0
        self._program: Program | None = None

    def run(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Run a job.

        Args:
            job: Plain data. `operation` "judge": what `Judge` takes; "program": `code`,
                `cases` (pairs of input and expected output), `tolerance`, `run_all`.

        Returns:
            `verdict`, `reason`, `test`, `got`, `output`, `num_passed`, `num_tests`.

        Raises:
            SetupError: If the attempt's process could not be set up.
        """
        self._deadline = time.monotonic() + self._limits.timeout_s
        answer: dict[str, Any] = {"num_passed": 0, "num_tests": 1}
        try:
            answer |= self._judged(job) if job["operation"] == "judge" else self._run_cases(job)
        except (_OutOfTimeError, TooMuchOutputError) as error:
            answer |= self._limit_failure(error)
        if self._program is not None:
            printed = self._program.stdout + self._program.stderr
            answer["output"] = _shown(bytes(printed[-_SHOWN * 4 :]))
            self._program.close()
        return answer

    def _launch(self, given: bytes) -> socket.socket:
        """Start a program; return the other end of its link."""
        ours, theirs = socket.socketpair()
        if self._program is not None:
            self._program.close()
        self._program = Program(self._keeper, theirs, given, self._limits.output_bytes)
        return ours

    def _wait(self, *awaited: int) -> list[int]:
        """Wait until one of the descriptors is readable; without any, until all output is there.

        Raises:
            _OutOfTimeError: If the attempt's time is over.
            TooMuchOutputError: If it printed more than it may.
        """
        assert self._program is not None
        found: list[int] = []
        while not found and (awaited or not self._program.is_silent):
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise _OutOfTimeError
            found = self._program.wait(awaited, left)
        return found

    def _wait_for_exit(self) -> int:
        self._wait(self._keeper.fileno())
        status = self._keeper.receive_exit(wait=True)
        if status is None:
            raise ChannelClosedError("the keeper of the attempt's processes is gone")
        return status

    def _exit_status_soon(self) -> int | None:
        """Return the exit status of a program that let its link go; None if it still runs."""
        assert self._program is not None
        end = time.monotonic() + _EXIT_S
        while (left := end - time.monotonic()) > 0:
            if self._program.wait([self._keeper.fileno()], left):
                return self._keeper.receive_exit()
        return None

    def _judged(self, job: Mapping[str, Any]) -> dict[str, Any]:
        link = self._launch(b"")
        nonce = secrets.token_hex(16)
        socket.send_fds(self._judge, [b"L"], [link.fileno()])
        link.close()
        channel = Channel(self._judge, NO_LIMIT)
        exit_status: int | None = None
        try:
            channel.send({**job, "nonce": nonce})
            while self._judge.fileno() not in self._wait(
                self._judge.fileno(), *([] if exit_status is not None else [self._keeper.fileno()])
            ):
                exit_status = self._wait_for_exit()
            report = channel.receive()
        except (ChannelClosedError, PlainDataError) as error:
            return {"verdict": "ERROR", "reason": f"the judge ended without a report: {error}"}
        if report.pop("nonce") != nonce:
            return {"verdict": "ERROR", "reason": "the judge's report is not its own"}
        verdict = _VERDICTS[report.pop("outcome")]
        if report.pop("gone"):
            if exit_status is None:
                exit_status = self._exit_status_soon()
            if exit_status == SETUP_FAILED:
                raise SetupError(self._last_error())
            report["reason"] += f": {_description(exit_status)}"
            verdict = "TIMEOUT" if _is_cpu_limit(exit_status) else verdict
        else:
            self._drain()
        return {**report, "verdict": verdict}

    def _last_error(self) -> str:
        """Return the last line that the program printed to standard error."""
        assert self._program is not None
        self._drain()
        lines = _shown(bytes(self._program.stderr[-_SHOWN:])).strip().splitlines()
        return lines[-1] if lines else ""

    def _drain(self) -> None:
        """Take what is in the pipes, without waiting for more."""
        assert self._program is not None
        with contextlib.suppress(TooMuchOutputError):
            for _ in range(4):
                self._program.wait([], 0)

    def _run_cases(self, job: Mapping[str, Any]) -> dict[str, Any]:
        cases: Sequence[tuple[str, str]] = job["cases"]
        passed = 0
        answer: dict[str, Any] = {"verdict": "CORRECT", "reason": "", "test": "", "got": ""}
        for number, (given, expected) in enumerate(cases, start=1):
            try:
                failure = self._failure(job, given, expected)
                is_last = not job["run_all"]
            except (_OutOfTimeError, TooMuchOutputError) as error:
                failure = {**self._limit_failure(error), "got": ""}
                is_last = True
            if failure is None:
                passed += 1
                continue
            if answer["verdict"] == "CORRECT":
                answer |= {**failure, "test": f"case {number}: input {_shortened(given)}"}
            if is_last:
                break
        return {**answer, "num_passed": passed, "num_tests": len(cases)}

    def _limit_failure(self, error: Exception) -> dict[str, Any]:
        if isinstance(error, _OutOfTimeError):
            reason = f"not done after {self._limits.timeout_s:g} s"
            return {"verdict": "TIMEOUT", "reason": reason}
        reason = f"more than {self._limits.output_kb} KiB of output"
        return {"verdict": "WRONG", "reason": reason}

    def _failure(self, job: Mapping[str, Any], given: str, expected: str) -> dict[str, Any] | None:
        """Run the program on one input; return what is wrong, None if nothing is."""
        link = self._launch(given.encode("utf-8", "surrogatepass"))
        channel = Channel(link, NO_LIMIT)
        with contextlib.suppress(ChannelClosedError):
            channel.send(("program", job["code"], ""))
        exit_status = self._wait_for_exit()
        unreadable = _answer_left(channel)
        self._wait()  # Nobody is left who could write; what is in the pipes is the rest.
        assert self._program is not None
        output = bytes(self._program.stdout).decode("utf-8", "replace")
        if exit_status == SETUP_FAILED:
            raise SetupError(self._last_error())
        if _is_cpu_limit(exit_status):
            return {"verdict": "TIMEOUT", "reason": "the limit of CPU time", "got": ""}
        if unreadable is not None:
            return {"verdict": "UNPARSEABLE", "reason": unreadable[1], "got": ""}
        if exit_status != 0:
            reason = f"the program ended with {_description(exit_status)}: {self._last_error()}"
            return {"verdict": "WRONG", "reason": reason[:_SHOWN], "got": _shortened(output)}
        if not same_output(output, expected, job["tolerance"]):
            reason = f"the output differs from {_shortened(expected)}"
            return {"verdict": "WRONG", "reason": reason, "got": _shortened(output)}
        return None


def _answer_left(channel: Channel) -> Any:
    """Take what a program that ended has answered before its code ran; None if nothing."""
    with contextlib.closing(channel), contextlib.suppress(ChannelClosedError, PlainDataError):
        if select.select([channel], [], [], 0)[0]:
            return channel.receive()
    return None


def _is_cpu_limit(exit_status: int | None) -> bool:
    return (
        exit_status is not None
        and os.WIFSIGNALED(exit_status)
        and os.WTERMSIG(exit_status) == signal.SIGXCPU
    )


def _description(exit_status: int | None) -> str:
    if exit_status is None:
        return "it closed its link"
    if os.WIFSIGNALED(exit_status):
        number = os.WTERMSIG(exit_status)
        with contextlib.suppress(ValueError):
            return signal.Signals(number).name
        return f"signal {number}"
    return f"exit code {os.waitstatus_to_exitcode(exit_status)}"


def _shortened(text: str) -> str:
    """A text as Python writes it, of a long one both ends. The sandbox stands on its own."""
    half = _NUM_SHOWN_CHARACTERS // 2
    return repr(text if len(text) <= 2 * half else f"{text[:half]} ... {text[-half:]}")


def _shown(data: bytes) -> str:
    return data.decode("utf-8", "replace")[-_SHOWN:]
