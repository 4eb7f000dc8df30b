"""Hostile programs: none is rewarded, none survives its verdict, none slows the pool."""

import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pytest

from prefix_rft_rllib.envs.sandbox import landlock
from prefix_rft_rllib.envs.sandbox.isolation import is_offered
from prefix_rft_rllib.envs.verifiers.code_verifier import CodeVerifier
from tests.envs.verifiers.code_attacks import attack_table, read_attacks

DOCS = Path(__file__).resolve().parents[3] / "docs" / "sandbox.md"
ATTACKS = read_attacks()
TESTS = {"kind": "asserts", "asserts": ["assert f(3) == 10", "assert f(7) == 50"]}
CASES = [{"input": "3\n", "output": "10\n"}, {"input": "7\n", "output": "50\n"}]
PROGRAM_TESTS = {"kind": "stdin_stdout", "cases": CASES}
HONEST = "def f(x):\n    return x * x + 1\n"
FIRST_USER_ID = 40_000
LIMIT_S = 1.0
NUM_WORKERS = 2

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")


@pytest.fixture
def secret():
    """A file with the answers that every user may read, and one that every user may write."""
    directory = Path(tempfile.mkdtemp(prefix="code_attacks_"))
    directory.chmod(0o755)
    path = directory / "answers"
    path.write_text("{3: 10, 7: 50}")
    path.chmod(0o644)
    open_file = directory / "answers.open"
    open_file.write_text("untouched")
    open_file.chmod(0o666)
    yield path
    shutil.rmtree(directory)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def processes(is_wanted):
    """Ids of the processes for which `is_wanted(user_id, command_line)`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status = (path / "status").read_text()
            command = (path / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        user_id = int(status.partition("Uid:")[2].split()[0])
        if "State:\tZ" not in status and is_wanted(user_id, command):
            found.append(int(path.name))
    return found


def of_attempts():
    """Processes that still run under the user id of an attempt or a judge.

    Every third id is that of the process that ends an attempt's; new workers use it too.
    """
    ids = {id for id in range(FIRST_USER_ID, FIRST_USER_ID + 9000) if (id - FIRST_USER_ID) % 3 < 2}
    return processes(lambda user_id, command: user_id in ids)


def of_sandboxes():
    return processes(lambda user_id, command: f'"first_user_id": {FIRST_USER_ID}' in command)


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def honest_seconds(verifier, number=10):
    """Median time of honest attempts; all of them must pass."""
    results = [verifier.verify(HONEST, TESTS, "f") for _ in range(number)]
    assert [str(result.verdict) for result in results] == ["CORRECT"] * number, results
    return statistics.median(result.seconds for result in results)


def listing(directory):
    try:
        return {
            entry.name
            for entry in os.scandir(directory)
            if entry.stat(follow_symlinks=False).st_uid
            in range(FIRST_USER_ID, FIRST_USER_ID + 10_000)
        }
    except OSError:
        return set()


@pytest.mark.parametrize("filtered", [True, False], ids=["filtered", "unfiltered"])
@pytest.mark.parametrize("level", ["namespaces", "none"])
def test_no_attack_is_rewarded_survives_or_slows_the_pool(level, filtered, secret, listener):
    if level == "namespaces" and not is_offered():
        pytest.skip("this machine offers no namespaces")
    verifier = CodeVerifier(
        extract="whole",
        isolation=level,
        filter_system_calls=filtered,
        first_user_id=FIRST_USER_ID,
        num_workers=NUM_WORKERS,
        timeout_s=LIMIT_S,
        memory_mb=256,
        output_kb=1024,
    )
    with verifier:
        before = honest_seconds(verifier)
        rewarded, surviving, late = [], [], []
        for attack in ATTACKS:
            tests = PROGRAM_TESTS if attack.is_program else TESTS
            source = attack.source(secret, listener.getsockname()[1])
            result = verifier.verify(source, tests, "f")
            if result.verdict == "CORRECT" and not (attack.only_isolation and level == "none"):
                rewarded.append((attack.name, result))
            if left := of_attempts():
                surviving.append((attack.name, left))
            if result.seconds > LIMIT_S + 1.0:
                late.append((attack.name, result.seconds))
            assert result.verdict != "ERROR", (attack.name, result)
        after = honest_seconds(verifier)
        assert rewarded == []
        assert surviving == []
        assert late == []
        assert after < 2 * before + 0.1
        # The one process that forks, and for each worker: itself, keeper, judge.
        expected = 1 + 3 * (NUM_WORKERS + 1)
        assert wait_until(lambda: len(of_sandboxes()) == expected), of_sandboxes()
    assert wait_until(lambda: not of_sandboxes())
    assert not any(map(listing, ["/tmp", "/var/tmp", "/dev/shm"]))
    if level == "namespaces" or landlock.version():
        assert secret.with_name("answers.open").read_text() == "untouched"
    if filtered or level == "namespaces":
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_there_are_enough_attacks_and_their_names_differ():
    names = [attack.name for attack in ATTACKS]
    assert len(names) >= 40
    assert len(set(names)) == len(names)


def test_the_docs_show_the_table_of_attacks():
    assert attack_table() in DOCS.read_text(encoding="utf-8"), (
        "paste the output of `python -m tests.envs.verifiers.code_attacks`"
    )
