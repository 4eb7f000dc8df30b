"""Every method on the default task: the same run with two env runners, and after a restore.

A response is sampled from the same numbers up to rounding on every env runner, so that once in many
thousand tokens a draw may fall on the other side of a border. Up to such a token two runs are
compared exactly, from then on as two runs of the same kind.
"""

from pathlib import Path

import pytest

from prefix_rft_rllib import PrefixRFT, PrefixRFTConfig
from prefix_rft_rllib.methods import METHODS
from tests.algorithm_runs import (
    ROLLOUT_FIELDS,
    Run,
    assert_close,
    assert_same_rollouts,
    assert_same_weights,
    numbers_of,
    rollouts_of,
    train_undisturbed,
    weights_of,
)
from tuned_examples.toy_arithmetic_prefix_rft import build_config

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("cluster")]

NUM_ITERATIONS, MIDDLE = 20, 10
METHOD_CONFIGS = {"relift": {"buffer_size": 8, "imitation_lr": 3e-4}}
"""Settings that show more within this length than those of the example."""
PLAN = [ROLLOUT_FIELDS.index(name) for name in ("problem_id", "group_id", "member", "minibatch")]
RESPONSE = ROLLOUT_FIELDS.index("response_ids")


def config_of(name: str, run_dir: Path, num_env_runners: int = 0) -> PrefixRFTConfig:
    """The default task with a method's settings for a run of this length, without evaluation."""
    config = build_config(name, num_iterations=NUM_ITERATIONS)
    config.training(method_config=METHOD_CONFIGS.get(name, config.method_config))
    config.evaluation(evaluation_interval=None).env_runners(num_env_runners=num_env_runners)
    config.reporting(run_dir=str(run_dir), num_logged_groups=16, preflight=False, progress=False)
    return config


@pytest.mark.parametrize("name", METHODS)
def test_two_env_runners_and_a_restored_run_give_the_same_run(name, tmp_path, record_property):
    run = train_undisturbed(
        config_of(name, tmp_path / "local"), tmp_path / "local", NUM_ITERATIONS, [MIDDLE]
    )
    assert_learns_something(run)
    algo = PrefixRFT.from_checkpoint(
        run.checkpoints[MIDDLE], config=config_of(name, tmp_path / "restored")
    )
    assert_continues_exactly(algo, run, tmp_path / "restored")
    algo = config_of(name, tmp_path / "remote", num_env_runners=2).build_algo()
    num_same = num_same_iterations(algo, run, tmp_path / "remote")
    assert num_same >= 1
    record_property("num_iterations_the_same_to_the_token", num_same)


def assert_learns_something(run: Run) -> None:
    for numbers in run.numbers.values():
        assert numbers["learner/num_optimizer_steps"] == 2
        assert numbers["learner/num_nonfinite_steps"] == 0
    # Not in every iteration: where all members share a long prefix, all may earn the same.
    norms = [numbers["learner/grad_norm"] for numbers in run.numbers.values()]
    assert sum(norm > 0 for norm in norms) >= NUM_ITERATIONS // 2
    first, last = run.weights[1], run.weights[NUM_ITERATIONS]
    assert all((value != first[key]).any() for key, value in last.items())


def assert_continues_exactly(algo: PrefixRFT, run: Run, run_dir: Path) -> None:
    assert algo.iteration == MIDDLE
    for iteration in range(MIDDLE + 1, NUM_ITERATIONS + 1):
        assert numbers_of(algo.train()) == run.numbers[iteration]
        assert rollouts_of(run_dir, iteration) == run.rollouts[iteration]
        for key, value in weights_of(algo).items():
            assert (value == run.weights[iteration][key]).all(), key
    algo.stop()


def num_same_iterations(algo: PrefixRFT, run: Run, run_dir: Path) -> int:
    """Train and compare; returns after how many iterations a response first differed."""
    num_same = 0
    for iteration in range(1, NUM_ITERATIONS + 1):
        numbers, expected = numbers_of(algo.train()), run.numbers[iteration]
        own, others = rollouts_of(run_dir, iteration), run.rollouts[iteration]
        assert [[r[i] for i in PLAN] for r in own] == [[r[i] for i in PLAN] for r in others]
        is_same = [r[RESPONSE] for r in own] == [r[RESPONSE] for r in others]
        if is_same and num_same == iteration - 1:
            assert_close(numbers, expected)
            assert_same_rollouts(run_dir, iteration, run)
            assert_same_weights(weights_of(algo), run.weights[iteration])
            num_same = iteration
            continue
        for key in ("rollouts/num_rollouts", "rollouts/num_groups", "learner/num_optimizer_steps"):
            assert numbers[key] == expected[key], key
        if "rollouts/reward_mean" in expected:
            reward = expected["rollouts/reward_mean"]
            assert numbers["rollouts/reward_mean"] == pytest.approx(reward, abs=0.15)
    algo.stop()
    return num_same
