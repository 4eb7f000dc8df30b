"""A signal ends a training program in seconds, with all its processes, and tears nothing."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from prefix_rft_rllib.runs.run_directory import read_metrics
from tests.run_records import scalars_of

pytestmark = [pytest.mark.slow, pytest.mark.integration]

LIMIT_S = 90.0
"""Seconds on an idle machine; most of it is Ray's own end."""


@pytest.fixture
def program(tiny_model_dir, tmp_path):
    """A program after two iterations; ended by force if a test fails."""
    command = [sys.executable, "-m", "tests.processes.training", tiny_model_dir, str(tmp_path)]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    for _ in range(3):
        while program.stdout.readline() != "begun\n":
            assert program.poll() is None, "the program has ended"
    yield program
    program.kill()
    program.wait()


def processes_of(program) -> list[psutil.Process]:
    """Ray's processes that the program has started, without its dashboard, and their own ones."""
    children = psutil.Process(program.pid).children(recursive=True)
    return [child for child in children if "ashboard" not in " ".join(child.cmdline())]


@pytest.mark.parametrize(
    ("number", "to_all", "exit_codes"),
    [
        (signal.SIGINT, True, {1, -2}),  # a terminal sends Ctrl-C to all processes of the group
        (signal.SIGINT, False, {1, -2}),
        (signal.SIGTERM, False, {143, 15}),  # 15: Ray's, in the moment between two iterations
        (signal.SIGKILL, False, {-9}),
    ],
    ids=["ctrl-c", "sigint", "sigterm", "sigkill"],
)
def test_a_signal_ends_the_program_and_leaves_a_whole_run_directory(
    program, tmp_path, number, to_all, exit_codes
):
    processes = processes_of(program)
    assert len(processes) > 5
    started = time.monotonic()
    if to_all:
        os.killpg(program.pid, number)
    else:
        program.send_signal(number)
    assert program.wait(LIMIT_S) in exit_codes
    _, alive = psutil.wait_procs(processes, timeout=LIMIT_S)
    assert alive == []
    print(f"{number.name}: gone after {time.monotonic() - started:.1f} s")
    rows = read_metrics(tmp_path)
    assert [row["training_iteration"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 2
    assert set(scalars_of(tmp_path)) == {row["training_iteration"] for row in rows}
