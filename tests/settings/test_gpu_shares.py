"""GPUs in the settings: shares that work, shares that collide, GPUs that stay idle."""

import logging
import sys
import types
from typing import Any

import pytest
import ray
import torch

from prefix_rft_rllib import methods
from prefix_rft_rllib.engines import build_engine, check_engine_config
from prefix_rft_rllib.rollouts.runner_device import device_option
from prefix_rft_rllib.settings.gpu_shares import (
    Place,
    idle_gpus,
    shared_by_learners,
    unused,
    visible_gpu,
)
from prefix_rft_rllib.transfers import shared_gpus
from tests.small_configs import config, error_of


def on_gpus(
    *, runners: int = 8, learners: int = 8, runner: Any = 0.51, learner: Any = 0.49, **changes: Any
):
    """Settings of env runners and learners with shares of GPUs."""
    return (
        config()
        .env_runners(num_env_runners=runners, num_gpus_per_env_runner=runner, **changes)
        .learners(num_learners=learners, num_gpus_per_learner=learner)
    )


@pytest.mark.parametrize(
    ("runners", "learners", "runner", "learner"),
    [
        (8, 8, 0.51, 0.49),
        (8, 8, 1, 1),
        (4, 4, 0.6, 0.4),
        (2, 2, 0, 1),
        (1, 1, 0.5, 0.5),
        (4, 1, 0.2, 0.2),  # several small engines on one GPU, one learner
        (8, 4, 0.51, 0.49),
        (0, 0, 0, 1),
    ],
)
def test_shares_with_a_gpu_for_every_learner_are_valid(runners, learners, runner, learner):
    on_gpus(runners=runners, learners=learners, runner=runner, learner=learner).validate()


@pytest.mark.parametrize(
    ("runners", "learners", "runner", "learner"),
    [
        (2, 2, 0.5, 0.5),
        (8, 8, 0.5, 0.5),
        (8, 8, 0, 0.5),
        (8, 8, 0.6, 0.2),
        (4, 8, 0.51, 0.49),  # four learners find no env runner to share with
        (2, 2, 1, 0.49),
    ],
)
def test_two_learners_on_one_gpu_are_refused(runners, learners, runner, learner):
    settings = on_gpus(runners=runners, learners=learners, runner=runner, learner=learner)
    message = error_of(settings)
    assert (
        f"`num_gpus_per_learner` ({learner}) with `num_gpus_per_env_runner` ({runner})" in message
    )
    assert "Ray fills a GPU before it opens the next" in message
    is_shareable = runners >= learners
    assert ("num_gpus_per_env_runner=0.51 and num_gpus_per_learner=0.49" in message) == is_shareable


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (on_gpus(learner=2), "`num_gpus_per_learner` (2): a learner uses one GPU"),
        (
            on_gpus(learner=-1),
            "`num_gpus_per_learner` must be a finite number of at least 0, got -1",
        ),
        (
            on_gpus(learner="1"),
            "`num_gpus_per_learner` must be a finite number of at least 0, got '1'",
        ),
        (on_gpus(learner=float("nan")), "`num_gpus_per_learner` must be a finite number"),
        (on_gpus(runner=1.5), "`num_gpus_per_env_runner` (1.5) must be a whole number, or a"),
        (on_gpus(runner=2, learner=1), "is 2, but the engine 'transformers' uses 1"),
        (
            on_gpus(runner=1, learner=1, engine="vllm", engine_config={"tensor_parallel_size": 2}),
            "is 1, but the engine 'vllm' uses 2",
        ),
        (
            on_gpus(runner=0.5, learner=1, engine="vllm"),
            "puts 2 vLLM engines on one GPU, each with 0.9 of its memory",
        ),
        (
            on_gpus(runners=0, learners=0, runner=1, learner=1),
            "`num_gpus_per_env_runner` (1) has no effect with `num_env_runners=0`",
        ),
        (
            on_gpus(runner=0, learner=1, engine_config={"device": "cuda:0"}),
            "`device` in engine_config ('cuda:0') does not go with `num_gpus_per_env_runner` (0)",
        ),
        (
            on_gpus(engine_config={"device": "cpu"}),
            "`device` in engine_config ('cpu') does not go with `num_gpus_per_env_runner` (0.51)",
        ),
        (
            on_gpus(runners=0, learners=0, runner=0, learner=0, engine_config={"device": "cuda"}),
            "`device` in engine_config ('cuda') does not go with `num_gpus_per_learner` (0)",
        ),
    ],
)
def test_gpus_that_cannot_be_used_as_set_are_refused(settings, part):
    assert part in error_of(settings)


def test_vllm_engines_may_share_a_gpu_whose_memory_they_divide():
    halves = {"gpu_memory_utilization": 0.45}
    on_gpus(runner=0.5, learner=1, engine="vllm", engine_config=halves).validate()
    one_worker_each = {"tensor_parallel_size": 2}
    on_gpus(runner=2, learner=1, engine="vllm", engine_config=one_worker_each).validate()


def test_a_part_without_a_gpu_is_said_with_the_settings():
    line = idle_gpus(on_gpus(runner=0, learner=0), 8, samples=True)
    assert line is not None
    assert line.startswith(
        "There are 8 GPUs, but learning (`num_gpus_per_learner` is 0) and sampling "
        "(`num_gpus_per_env_runner` is 0) run on the CPU."
    )
    assert "config.learners(num_gpus_per_learner=1)" in line
    in_driver = on_gpus(runners=0, runner=0, learner=1)
    assert "sampling in the main process" in str(idle_gpus(in_driver, 1, samples=True))


@pytest.mark.parametrize(
    ("settings", "num_gpus", "samples"),
    [
        (on_gpus(runner=0, learner=0), 0, True),
        (on_gpus(), 8, True),
        (on_gpus(runner=0, learner=1), 8, False),  # a method that samples nothing
        (on_gpus(runners=0, learners=0, runner=0, learner=1), 1, True),
    ],
)
def test_nothing_is_said_where_no_gpu_is_idle(settings, num_gpus, samples):
    assert idle_gpus(settings, num_gpus, samples=samples) is None


def place(name: str, *gpus: str, node: str = "a", device: str = "cuda") -> Place:
    return Place(name, node, gpus, device)


def test_learners_on_one_gpu_are_told_from_learners_on_two():
    apart = [place("learner 0", "0"), place("learner 1", "1"), place("learner 2", "0", node="b")]
    assert shared_by_learners(apart) is None
    assert shared_by_learners([]) is None
    on_cpus = [place("learner 0"), place("learner 1")]
    assert shared_by_learners(on_cpus) is None
    together = [*apart, place("learner 3", "1")]
    assert shared_by_learners(together) == "learner 1 and learner 3 are both on GPU 1 of node a"


def test_a_gpu_that_torch_does_not_find_is_unused():
    places = [place("learner 0", "3", device="cpu"), place("env runner 1", "0"), place("x")]
    assert unused(places) == ["learner 0 (GPU 3 of node a)"]


def test_torchs_number_of_a_gpu_is_that_of_the_visible_ones():
    assert visible_gpu({}, 1) == "1"
    assert visible_gpu({"CUDA_VISIBLE_DEVICES": "4, 5"}, 1) == "5"
    assert visible_gpu({"CUDA_VISIBLE_DEVICES": ""}, 0) == "0"


@pytest.fixture
def seen_gpus(monkeypatch):
    """Sets how many GPUs torch says it sees."""

    def see(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return see


@pytest.fixture
def process(monkeypatch):
    """Makes this process an actor with GPUs from Ray; None for the driver."""

    def be(gpus: list[str] | None) -> None:
        context = types.SimpleNamespace(
            get_actor_id=lambda: None if gpus is None else "actor",
            get_accelerator_ids=lambda: {"GPU": gpus or []},
        )
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
        monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": 8.0})

    return be


def test_an_engine_in_an_actor_uses_a_gpu_only_if_ray_gave_one(process, seen_gpus, tiny_model_dir):
    seen_gpus(8)  # Ray does not hide the machine's GPUs from actors without one
    settings = on_gpus()
    process([])
    assert device_option(settings) == {"device": "cpu"}
    process(["5"])
    assert device_option(settings) == {}  # the first visible one, which is 5 alone
    process([])
    model_config = config(model_path=tiny_model_dir).load_model_config()
    options = device_option(settings)
    engine = build_engine("transformers", model_config, eos_token_ids=[1], **options)
    assert engine._device == torch.device("cpu")
    assert device_option(on_gpus(engine="vllm")) == {}


def test_an_engine_in_the_driver_follows_the_learner(process):
    process(None)
    local = {"runners": 0, "learners": 0, "runner": 0}
    assert device_option(on_gpus(**local, learner=1)) == {"device": "cuda:0"}
    second = on_gpus(**local, learner=1).learners(local_gpu_idx=1)
    assert device_option(second) == {"device": "cuda:1"}
    assert device_option(on_gpus(**local, learner=0)) == {"device": "cpu"}
    remote_learner = on_gpus(runners=0, learners=1, runner=0, learner=1)
    assert device_option(remote_learner) == {"device": "cpu"}


def test_idle_gpus_are_one_warning_from_ray_or_from_torch(process, seen_gpus, caplog, monkeypatch):
    process(None)
    seen_gpus(0)
    settings = on_gpus(runner=0, learner=0)
    with caplog.at_level(logging.WARNING):
        shared_gpus.check_present_gpus(settings, methods.prefix_rft())
    assert [record.getMessage()[:18] for record in caplog.records] == ["There are 8 GPUs, "]
    caplog.clear()
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with caplog.at_level(logging.WARNING):
        shared_gpus.check_present_gpus(settings, methods.prefix_rft())
        assert not caplog.records  # no GPU anywhere
        seen_gpus(1)
        shared_gpus.check_present_gpus(settings, methods.prefix_rft())
    assert [record.getMessage()[:16] for record in caplog.records] == ["There is a GPU, "]


def test_a_learner_in_the_driver_needs_a_gpu_that_torch_sees(process, seen_gpus):
    process(None)
    seen_gpus(1)
    settings = on_gpus(runners=0, learners=0, runner=0, learner=1)
    shared_gpus.check_present_gpus(settings, methods.prefix_rft())
    settings.learners(local_gpu_idx=1)
    with pytest.raises(ValueError, match=r"where torch finds 1 GPUs \(`local_gpu_idx` is 1\)"):
        shared_gpus.check_present_gpus(settings, methods.prefix_rft())


def check_places(settings, places: list[Place]) -> None:
    """`check_gpu_places` of learners and env runners that are there."""
    of_learners = [place for place in places if place.name.startswith("learner")]
    results = [
        types.SimpleNamespace(actor_id=number, get=lambda place=place: place)
        for number, place in enumerate(of_learners)
    ]
    env_runners = [place for place in places if place not in of_learners]
    learners = types.SimpleNamespace(foreach_learner=lambda function: results)
    runners = types.SimpleNamespace(call=lambda function: env_runners)
    shared_gpus.check_gpu_places(settings, learners, runners)


def test_after_the_build_two_learners_on_one_gpu_are_an_error(caplog):
    settings = on_gpus(runners=1, learners=2)
    apart = [place("learner 0", "0"), place("learner 1", "1", device="cpu")]
    with caplog.at_level(logging.WARNING):
        check_places(settings, [*apart, place("env runner 1", "0")])
    assert "Torch finds no GPU in learner 1 (GPU 1 of node a)" in caplog.text
    together = [place("learner 0", "1"), place("learner 1", "1")]
    with pytest.raises(ValueError, match="learner 0 and learner 1 are both on GPU 1 of node a"):
        check_places(settings, together)
    on_cpus = on_gpus(runner=0, learner=0)
    check_places(on_cpus, together)  # nothing is asked


def test_a_gpu_of_the_driver_that_ray_gave_away_is_said(process, caplog):
    process(None)  # Ray does not know of the learner's GPU there
    settings = on_gpus(runners=1, learners=0, runner=1, learner=1)
    places = [place("learner 0", "0"), place("env runner 1", "0")]
    with caplog.at_level(logging.WARNING):
        check_places(settings, places)
    assert "uses GPU 0, which Ray gave to env runner 1 too" in caplog.text


@pytest.fixture
def vllm_build(monkeypatch):
    """Stands in for an installed vLLM; sets whether it is the build for CPUs."""
    from prefix_rft_rllib.engines.vllm import options as vllm_options

    monkeypatch.setattr(vllm_options, "import_vllm", lambda: None)
    monkeypatch.setattr(vllm_options, "_llm_argument_names", list)

    def build(*, is_cpu: bool) -> None:
        platform = types.SimpleNamespace(is_cpu=lambda: is_cpu)
        module = types.SimpleNamespace(current_platform=platform)
        monkeypatch.setitem(sys.modules, "vllm.platforms", module)

    return build


def test_vllms_build_for_gpus_needs_one(vllm_build):
    vllm_build(is_cpu=False)
    with pytest.raises(ValueError, match="`num_gpus_per_env_runner` is 0"):
        check_engine_config("vllm", {}, has_gpu=False)
    check_engine_config("vllm", {}, has_gpu=True)
    vllm_build(is_cpu=True)
    check_engine_config("vllm", {}, has_gpu=False)
