"""Weights on their way from the learners to remote engines, without Ray's object store."""

import functools
import time
from types import SimpleNamespace

import pytest
import ray

from prefix_rft_rllib.engines.vllm import weight_sender as vllm_weight_sender
from prefix_rft_rllib.transfers import weight_sync
from prefix_rft_rllib.transfers.weight_sync import Direct, ThroughObjectStore
from tests.algorithm_runs import assert_close, assert_same_rollouts, numbers_of
from tests.fake_weight_transfer import FakeSender, ReceivingEnvRunner, pid_and_steps

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]

UPDATE = ["start", "receive", "finish"]


@pytest.fixture(scope="module")
def remote(cluster, make_config, tmp_path_factory):
    """An algorithm whose two env runners take weights directly from the learner in the driver."""
    patch = pytest.MonkeyPatch()
    patch.setattr(vllm_weight_sender, "open_sender", FakeSender)
    run_dir = tmp_path_factory.mktemp("direct")
    config = make_config().env_runners(num_env_runners=2, env_runner_cls=ReceivingEnvRunner)
    algo = config.reporting(run_dir=str(run_dir), num_logged_groups=4).build_algo()
    assert isinstance(algo._weight_sync, ThroughObjectStore)
    yield algo, algo.save_to_path(str(run_dir / "start"))
    algo.stop()
    patch.undo()


@pytest.fixture
def algo(remote):
    """The algorithm at its start, with both runners healthy and no connection."""
    algo, start = remote
    wait_for_runners(algo)
    algo._weight_sync = Direct(algo.learner_group, algo.env_runners, "nccl")
    on_runners(algo, pid_and_steps)
    algo.restore_from_path(start)
    return algo


def wait_for_runners(algo, ended: frozenset[int] = frozenset()) -> None:
    """Wait for two healthy runners, none of them in one of the processes that were ended."""
    deadline = time.monotonic() + 60
    while len(pids := pids_of(algo)) < 2 or pids & ended:
        algo.restore_env_runners(algo.env_runner_group)
        assert time.monotonic() < deadline


def pids_of(algo) -> frozenset[int]:
    return frozenset(pid for pid, *_ in on_runners(algo, pid_and_steps))


def on_runners(algo, function, *numbers: int) -> list:
    return algo.env_runner_group.foreach_env_runner(
        function, remote_worker_ids=list(numbers) or None, local_env_runner=False
    )


def taken_steps(algo) -> list[list[str]]:
    return [steps for _, steps, _ in on_runners(algo, pid_and_steps)]


def numbers_of_weights(algo) -> list[int]:
    return on_runners(algo, lambda runner: runner._engine.weights_seq_no)


def test_the_run_is_that_of_weights_through_ray(algo, run):
    # One connection, made at the restore before this test.
    assert taken_steps(algo) == [["check", "connect", *UPDATE]] * 2
    for iteration in (1, 2, 3):
        assert_close(numbers_of(algo.train()), run.numbers[iteration])
        assert_same_rollouts(algo.config.run_dir, iteration, run)
        assert taken_steps(algo) == [UPDATE] * 2
        assert numbers_of_weights(algo) == [algo._weights_seq_no] * 2


def test_every_worker_has_a_rank_of_its_own(algo):
    assert [rank for *_, rank in on_runners(algo, pid_and_steps)] == [1, 2]


def test_a_runner_that_was_started_again_is_met_again(algo, run):
    algo.train()
    taken_steps(algo)
    sender = algo.learner_group._learner.weight_sender
    ray.kill(algo.env_runner_group._worker_manager.actors()[1], no_restart=False)
    assert_close(numbers_of(algo.train()), run.numbers[2])
    wait_for_runners(algo)
    assert numbers_of_weights(algo) == [algo._weights_seq_no] * 2  # the new one's through Ray
    taken_steps(algo)
    assert_close(numbers_of(algo.train()), run.numbers[3])
    assert sender.is_closed
    assert [steps[-3:] for steps in taken_steps(algo)] == [UPDATE] * 2
    assert_same_rollouts(algo.config.run_dir, 3, run)


def break_receiver(runner) -> None:
    runner._engine._receiver.is_broken = True


def test_a_transfer_that_breaks_off_leaves_no_engine_with_half_of_the_weights(algo, run):
    before = pids_of(algo)
    on_runners(algo, break_receiver, 2)
    assert_close(numbers_of(algo.train()), run.numbers[1])  # breaks off at its end
    assert_close(numbers_of(algo.train()), run.numbers[2])
    wait_for_runners(algo, before)
    assert_close(numbers_of(algo.train()), run.numbers[3])
    assert numbers_of_weights(algo) == [algo._weights_seq_no] * 2


def test_a_second_failure_in_a_row_is_an_error(algo):
    before = pids_of(algo)
    on_runners(algo, break_receiver)
    algo.sync_weights()
    wait_for_runners(algo, before)
    before = pids_of(algo)
    on_runners(algo, break_receiver)
    with pytest.raises(RuntimeError, match=r"'nccl' has failed twice.*'object_store'"):
        algo.sync_weights()
    wait_for_runners(algo, before)


def test_weights_that_do_not_fit_are_an_error_that_names_them(algo, monkeypatch):
    shapes = {"model.norm.weight": (1,)}
    source = SimpleNamespace(
        metadata=lambda: [SimpleNamespace(name=n, shape=shape) for n, shape in shapes.items()]
    )
    monkeypatch.setattr(weight_sync, "LearnerWeights", lambda module: source)
    algo._weight_sync = Direct(algo.learner_group, algo.env_runners, "nccl")
    with pytest.raises(ValueError, match=r"missing: model\.embed_tokens"):
        algo.sync_weights()
    assert algo.env_runner_group.num_healthy_remote_env_runners() == 2


def chosen(algo, monkeypatch, learner_gpu: str, *runner_gpus: str, wanted: str = "auto"):
    config = algo.config.copy(copy_frozen=False)
    config.weight_transfer = wanted
    monkeypatch.setattr(weight_sync, "planned_transfer", lambda config: "nccl")
    monkeypatch.setattr(weight_sync, "_gpu_of_learner", lambda learner: learner_gpu)
    gpus = functools.partial(lambda gpus, runner: [gpus[runner.worker_index - 1]], runner_gpus)
    monkeypatch.setattr(weight_sync, "_gpus_of_env_runner", gpus)
    return weight_sync.weight_sync(config, algo.learner_group, algo.env_runners)


def test_where_the_actors_are_decides_last(algo, monkeypatch, caplog):
    assert isinstance(chosen(algo, monkeypatch, "a", "b", "c"), Direct)
    assert isinstance(chosen(algo, monkeypatch, "a", "b", "a"), ThroughObjectStore)
    assert "not by 'nccl': the first learner and an env runner are on the same GPU" in caplog.text
    with pytest.raises(ValueError, match=r"`weight_transfer='nccl'` is not possible here: sev"):
        chosen(algo, monkeypatch, "a", "b", "b", wanted="nccl")
