"""A head that asks for a token: what a driver and `ray job submit` need (docs/cluster.md)."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from prefix_rft_rllib.basics.ray_token import USER_SETTINGS

psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.integration

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
HAS_DASHBOARD = importlib.util.find_spec("aiohttp_cors") is not None
TRAIN = """
import sys
from prefix_rft_rllib import PrefixRFTConfig, start_ray
from prefix_rft_rllib.envs import TOY_BASE_MODEL

start_ray(**({"address": sys.argv[2]} if len(sys.argv) > 2 else {}))
data = {"num_problems": 4, "min_clauses": 1, "max_clauses": 2, "seed": 0}
config = (
    PrefixRFTConfig()
    .environment(
        "PrefixRFT/ToyArithmetic-v0",
        env_config={"data_config": data, "max_prompt_tokens": 64, "max_response_tokens": 40},
    )
    .training(model_path=str(TOY_BASE_MODEL), group_size=2, num_problems_per_iteration=2,
              num_problems_per_minibatch=1)
    .reporting(run_dir=sys.argv[1], preflight=False)
)
algo = config.build_algo()
algo.train()
algo.stop()
"""


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def environment(home: Path, **settings: str) -> dict[str, str]:
    """That of a user with this home directory, without settings of Ray."""
    kept = {k: v for k, v in os.environ.items() if k not in (*USER_SETTINGS, "RAY_TMPDIR")}
    root = str(Path(__file__).parents[1])
    return {**kept, "HOME": str(home), "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **settings}


def start(command: list[str], home: Path, **settings: str) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment(home, **settings), cwd=home, **pipes)


@pytest.fixture
def head(tmp_path, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """An authenticated head with ports and a home of its own; ends with the test."""
    owner, guest = tmp_path / "owner", tmp_path / "guest"
    owner.mkdir()
    guest.mkdir()
    generate = start([*RAY, "get-auth-token", "--generate"], owner)
    generate.communicate(timeout=120)
    token = (owner / ".ray" / "auth_token").read_text()
    # Short: paths of sockets below it are limited to 107 bytes.
    temporary = Path(tmp_path_factory.getbasetemp().parent, f"h{os.getpid()}")
    port, dashboard_port, client_port = free_ports(3)
    options = {
        "port": port,
        "dashboard-port": dashboard_port,
        "ray-client-server-port": client_port,
        "num-cpus": 2,
        "temp-dir": temporary,
        "include-dashboard": str(HAS_DASHBOARD).lower(),
        "object-store-memory": 100 * 2**20,
    }
    log = tmp_path / "head.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*RAY, "start", "--head", "--block", *(f"--{k}={v}" for k, v in options.items())],
            env=environment(owner),
            cwd=owner,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 120
        while "--block" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        address = re.search(r"Local node IP: (\S+)", log.read_text())[1]
        yield SimpleNamespace(
            address=f"{address}:{port}",
            dashboard=f"http://127.0.0.1:{dashboard_port}",
            owner=owner,
            guest=guest,
            token=token,
        )
    finally:
        end(process, str(temporary))


def end(process: subprocess.Popen, temporary: str) -> None:
    """End a head and every process of its directory, by their ids."""
    process.terminate()
    try:
        process.wait(timeout=20)
    finally:
        process.kill()
        for other in psutil.process_iter(["cmdline"]):
            if any(temporary in part for part in other.info["cmdline"] or ()):
                other.kill()


def test_a_driver_needs_the_token_and_is_told_so(head, tmp_path):
    train = [sys.executable, "-c", TRAIN]
    run_dir = tmp_path / "run"
    trained = start([*train, str(run_dir), head.address], head.owner, RAY_AUTH_MODE="token")
    refused = start([*train, str(tmp_path / "none")], head.guest, RAY_ADDRESS=head.address)
    without = start(
        [*train, str(tmp_path / "none"), head.address], head.guest, RAY_AUTH_MODE="token"
    )
    output, _ = without.communicate(timeout=120)
    assert without.returncode == 1
    assert "Token authentication is enabled but no authentication token was found" in output
    output, _ = refused.communicate(timeout=120)
    assert refused.returncode == 1
    assert "this process needs RAY_AUTH_MODE=token and that token" in output
    output, _ = trained.communicate(timeout=200)
    assert trained.returncode == 0, output
    assert (run_dir / "metrics.jsonl").read_text().count("\n") == 1
    assert not (tmp_path / "none" / "metrics.jsonl").exists()


@pytest.mark.skipif(not HAS_DASHBOARD, reason="jobs need ray[default]: pip install 'ray[default]'")
def test_a_job_needs_the_token_where_it_is_submitted(head, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    submit = [*RAY, "job", "submit", "--address", head.dashboard, "--", sys.executable]
    command = [*submit, str(script), str(tmp_path / "run")]
    output, _ = start(command, head.guest).communicate(timeout=120)
    assert "Missing authentication token" in output
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": head.token}
    output, _ = start(command, head.guest, **settings).communicate(timeout=250)
    assert "succeeded" in output
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 1
