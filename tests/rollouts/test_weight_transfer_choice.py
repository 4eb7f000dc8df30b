import dataclasses

import pytest

from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.rollouts.weight_transfer_choice import (
    TransferFacts,
    choose,
    obstacle,
    planned_transfer,
)

pytest_plugins = ("tests.algorithm_fixtures",)

APART = TransferFacts(
    weight_transfer="auto",
    engine="vllm",
    num_env_runners=2,
    num_learners=1,
    gpus_per_env_runner=1,
    gpus_per_learner=1,
)
TOGETHER = dataclasses.replace(APART, gpus_per_env_runner=0.5, gpus_per_learner=0.5)
IMPOSSIBLE = {
    "engine='vllm', not 'transformers'": {"engine": "transformers"},
    "`num_env_runners` of at least 1": {"num_env_runners": 0},
    "`num_learners` of at least 1": {"num_learners": 0},
    "`num_gpus_per_env_runner` above 0": {"gpus_per_env_runner": 0},
    "`num_gpus_per_learner` above 0": {"gpus_per_learner": 0},
}


def test_gpus_of_their_own_are_connected_and_shared_ones_are_read():
    assert choose(APART) == "nccl"
    assert choose(TOGETHER) == "ipc"
    assert choose(dataclasses.replace(APART, gpus_per_env_runner=2)) == "nccl"


@pytest.mark.parametrize("settings", [APART, TOGETHER])
def test_the_setting_decides(settings):
    for wanted, expected in (("object_store", None), ("nccl", "nccl"), ("ipc", "ipc")):
        assert choose(dataclasses.replace(settings, weight_transfer=wanted)) == expected


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_a_direct_transfer_needs(what):
    settings = dataclasses.replace(APART, **IMPOSSIBLE[what])
    assert choose(settings) is None
    for wanted in ("nccl", "ipc"):
        with pytest.raises(ValueError) as error:
            choose(dataclasses.replace(settings, weight_transfer=wanted))
        assert str(error.value).startswith(f"`weight_transfer={wanted!r}` needs {what}.")


@pytest.mark.parametrize(
    ("backend", "learners", "env_runners", "reason"),
    [
        ("nccl", ["a"], [["b"], ["c"]], None),
        ("nccl", ["a", "b"], [["c", "d"], ["e", "f"]], None),
        # The second learner does not send: its GPU may be an env runner's.
        ("nccl", ["a", "b"], [["b"]], None),
        ("nccl", ["a"], [["b"], ["a"]], "on the same GPU a"),
        ("nccl", ["a"], [["b"], ["b"]], "several env runners"),
        ("nccl", [""], [["b"]], "no GPU"),
        ("nccl", ["a"], [["b"], []], "no GPU"),
        ("ipc", ["a"], [["a"]], None),
        ("ipc", ["a"], [["a"], ["a"]], None),
        ("ipc", ["a", "b"], [["b"], ["a"]], None),
        ("ipc", ["a", "b"], [["a", "b"]], None),
        ("ipc", ["a"], [["a"], ["b"]], "no learner is on the GPUs ['b']"),
        ("ipc", ["a"], [["a"], []], "no GPU"),
    ],
)
def test_the_gpus_must_lie_right(backend, learners, env_runners, reason):
    found = obstacle(backend, learners, env_runners)
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert reason in found


def test_a_config_is_checked_before_anything_starts(make_config):
    assert planned_transfer(make_config()) is None
    with pytest.raises(ValueError, match=r"needs engine='vllm', not 'transformers'.*'auto'"):
        make_config().env_runners(weight_transfer="nccl").validate()
    with pytest.raises(
        ValueError,
        match=r"`weight_transfer` must be one of 'auto', 'object_store', 'nccl', 'ipc', got 'rdma'",
    ):
        make_config().env_runners(weight_transfer="rdma").validate()
    with pytest.raises(ValueError, match=r"no option of an engine.*env_runners\(weight_transfer"):
        make_config().env_runners(engine_config={"weight_transfer": "ipc"}).validate()


def test_env_runners_of_an_evaluation_take_weights_through_ray():
    config = PrefixRFTConfig().env_runners(
        engine="vllm", num_env_runners=1, num_gpus_per_env_runner=1
    )
    config.learners(num_learners=1, num_gpus_per_learner=1)
    assert planned_transfer(config) == "nccl"
    config.in_evaluation = True
    assert planned_transfer(config) is None
