"""Two remote env runners give the run of the driver alone, for methods of every kind.

One run has them all, as stages: starting env runners takes longer than training here.
"""

from typing import Any

import pytest

from prefix_rft_rllib import methods
from prefix_rft_rllib.methods import Method, Stage
from tests.algorithm_runs import (
    assert_close,
    assert_same_rollouts,
    assert_same_weights,
    numbers_of,
    train_undisturbed,
    weights_of,
)
from tests.small_configs import SELDOM_RIGHT

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]

STAGES: dict[str, dict[str, Any]] = {
    "sft": {},
    "prefix_rft_adaptive": {"target": 0.05},
    "luffy": {},
    "relift": {"buffer_size": 2, "imitation_lr": 5e-3},
    "uft": {"num_schedule_iterations": 2},
    "chord": {"num_warmup_iterations": 1, "num_decay_iterations": 1},
}
ITERATIONS_PER_STAGE = 2


def test_two_remote_env_runners_give_the_same_run(make_config, tmp_path):
    stages = tuple(
        Stage(method=methods.by_name(name, **settings), num_iterations=ITERATIONS_PER_STAGE)
        for name, settings in STAGES.items()
    )
    settings = {
        "method": Method(name="all_kinds", stages=stages),
        "method_config": {},
        "max_resampling_rounds": 1,
    }
    num_iterations = len(stages) * ITERATIONS_PER_STAGE
    config = make_config({"verifier": SELDOM_RIGHT}, **settings)
    run = train_undisturbed(config, tmp_path / "local", num_iterations)
    assert_shows_every_kind(run)
    remote = make_config({"verifier": SELDOM_RIGHT}, **settings).env_runners(num_env_runners=2)
    run_dir = tmp_path / "remote"
    algo = remote.reporting(run_dir=str(run_dir), num_logged_groups=4).build_algo()
    for iteration in range(1, num_iterations + 1):
        assert_close(numbers_of(algo.train()), run.numbers[iteration])
        assert_same_rollouts(run_dir, iteration, run)
        assert_same_weights(weights_of(algo), run.weights[iteration])
    algo.stop()


def assert_shows_every_kind(run) -> None:
    """The run has what the methods differ in."""
    first = {name: 1 + ITERATIONS_PER_STAGE * number for number, name in enumerate(STAGES)}
    assert run.numbers[first["sft"]]["rollouts/num_rollouts"] == 0
    window = first["prefix_rft_adaptive"]
    lows = [run.numbers[window + t]["rollouts/prefix_window_low"] for t in (0, 1)]
    assert lows[0] != lows[1]
    assert "rollouts/reward_demonstration_mean" in run.numbers[first["luffy"]]
    steps = [run.numbers[first["relift"] + t].get("imitation_step/num_rows") for t in (0, 1)]
    assert 2 in steps
    assert run.numbers[first["uft"]]["rollouts/num_prefix_rollouts"] >= 8
    assert sum(n["rollouts/num_groups_replaced"] for n in run.numbers.values()) > 0
