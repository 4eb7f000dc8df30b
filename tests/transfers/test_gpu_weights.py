"""Direct weight transfers on GPUs: the same run as through Ray's object store."""

import pytest
import ray
import torch

from prefix_rft_rllib.envs import TOY_BASE_MODEL
from prefix_rft_rllib.transfers.weight_sync import Direct, ThroughObjectStore
from tests.algorithm_runs import numbers_of
from tests.engines.vllm.vllm_models import require_vllm
from tests.small_configs import small_config

pytestmark = pytest.mark.gpu


@pytest.fixture
def _cluster():
    require_vllm()
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    ray.init(num_cpus=6, include_dashboard=False)
    yield
    ray.shutdown()


def train(
    run_dir, expected, *, gpus: float, engine_options=None, **env_runners
) -> list[dict[str, float]]:
    config = (
        small_config(str(TOY_BASE_MODEL), lr=1e-3)
        .env_runners(
            num_env_runners=1,
            num_gpus_per_env_runner=gpus,
            engine="vllm",
            engine_config={
                "dtype": "float32",
                "max_model_len": 128,
                "enforce_eager": True,
                "gpu_memory_utilization": 0.3,
                **(engine_options or {}),
            },
            **env_runners,
        )
        .learners(num_learners=1, num_gpus_per_learner=gpus)
        .reporting(run_dir=str(run_dir))
    )
    algo = config.build_algo()
    assert isinstance(algo._weight_sync, expected)
    numbers = [numbers_of(algo.train()) for _ in range(3)]
    algo.stop()
    for iteration in numbers:
        assert iteration["learner/engine_logp_gap_mean"] < 1e-3
    return numbers


@pytest.mark.usefixtures("_cluster")
def test_weights_inside_one_gpu(tmp_path):
    ipc = train(tmp_path / "ipc", Direct, gpus=0.5)
    train(tmp_path / "ray", ThroughObjectStore, gpus=0.5, weight_transfer="object_store")
    assert ipc[0]["learner/grad_norm"] > 0


@pytest.mark.usefixtures("_cluster")
def test_weights_between_two_gpus(tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    train(tmp_path / "nccl", Direct, gpus=1)


@pytest.mark.usefixtures("_cluster")
def test_engines_that_sleep_during_updates_give_the_same_run(tmp_path):
    expected = train(tmp_path / "awake", Direct, gpus=0.5)
    slept = train(tmp_path / "asleep", Direct, gpus=0.5, engine_options={"enable_sleep_mode": True})
    for numbers, others in zip(slept, expected, strict=True):
        assert numbers == pytest.approx(others, rel=1e-3, abs=1e-3)
