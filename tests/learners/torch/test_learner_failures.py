"""Two learners that share a step: one fails, both end at once, wherever it happens."""

import os
import signal
import time

import psutil
import pytest
import ray
import torch

from prefix_rft_rllib.learners.learner_manager import LearnersFailedError
from prefix_rft_rllib.learners.torch.prefix_rft_torch_learner import PrefixRFTTorchLearner

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.usefixtures("cluster")]

LIMIT_S = 60.0
"""Half an hour is what the process group would wait."""


@pytest.fixture
def algo(make_config, tmp_path):
    """An algorithm with two learners, after one iteration; its checkpoint is in `first`."""
    config = make_config().learners(num_learners=2).reporting(run_dir=str(tmp_path / "run"))
    algo = config.build_algo()
    algo.train()
    algo.first = algo.save_to_path(str(tmp_path / "first"))
    yield algo
    algo.stop()


def run_out_of_memory(*args, **kwargs) -> None:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def be_killed(*args, **kwargs) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def on_the_second(algo, method: str, function) -> list[int]:
    """Replace a method of the second learner; returns the processes of both."""

    def replace(learner):
        if learner._learner_index == 1:
            setattr(learner, method, function)
        return os.getpid()

    return [result.get() for result in algo.learner_group.foreach_learner(replace)]


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def failure_of(call, pids: list[int]) -> str:
    """The error of a call, which comes in time and leaves no learner behind."""
    started = time.monotonic()
    with pytest.raises(LearnersFailedError) as caught:
        call()
    assert time.monotonic() - started < LIMIT_S
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() - started < LIMIT_S, "a learner is left"
    return str(caught.value)


def test_a_learner_that_runs_out_of_memory_ends_the_run_with_its_error(algo):
    pids = on_the_second(algo, "_optimizer_step", run_out_of_memory)
    error = failure_of(algo.train, pids)
    (line,) = error.splitlines()[1:-1]
    assert line.startswith("learner 1 (actor ") and f"process {pids[1]} on node" in line
    assert line.endswith("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    # Nothing that follows hangs or goes on without learners.
    for call in (algo.sync_weights, lambda: algo.save_to_path(algo.first)):
        assert "learner 1 (actor" in failure_of(call, pids)
    with pytest.raises(RuntimeError, match=r"had begun.* It failed of: .*learner 1 \(actor"):
        algo.train()


def test_a_killed_learner_is_named_before_the_one_that_lost_its_connection(algo):
    pids = on_the_second(algo, "_optimizer_step", be_killed)
    lines = failure_of(algo.train, pids).splitlines()
    assert lines[1].startswith("learner 1 (") and "its process has ended" in lines[1]


def test_a_restore_that_fails_in_one_learner_is_an_error(algo):
    pids = on_the_second(algo, "set_state", run_out_of_memory)
    error = failure_of(lambda: algo.restore_from_path(algo.first), pids)
    assert "learner 1 (" in error and "OutOfMemoryError" in error


class FailsToBuild(PrefixRFTTorchLearner):
    """A learner whose second copy has no room for the model."""

    def build(self) -> None:
        if self._learner_index == 1:
            run_out_of_memory()
        super().build()


def test_a_learner_that_cannot_be_built_ends_the_setup(make_config, tmp_path):
    config = make_config().learners(num_learners=2).training(learner_class=FailsToBuild)
    started = time.monotonic()
    with pytest.raises(Exception, match=r"OutOfMemoryError: CUDA out of memory"):
        config.reporting(run_dir=str(tmp_path)).build_algo()
    assert time.monotonic() - started < LIMIT_S
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, "a learner is left"
        time.sleep(0.2)
