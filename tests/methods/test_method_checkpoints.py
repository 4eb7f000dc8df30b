"""Restoring in the middle of a run, for methods and settings that remember more than weights."""

import logging

import pytest
from ray.rllib.core import DEFAULT_MODULE_ID

from prefix_rft_rllib import PrefixRFT
from prefix_rft_rllib.iterations.carried_over import CarriedOver
from prefix_rft_rllib.runs.run_directory import read_metrics
from tests.algorithm_runs import numbers_of, rollouts_of, weights_of
from tests.method_runs import NUM_ITERATIONS, method_config

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]

SETTINGS = {
    "prefix_rft_adaptive": {},
    "relift": {},
    "sft_rft": {},
    "luffy": {"max_resampling_rounds": 2, "importance_weight_cap": 2.0},
    "rft": {"max_resampling_rounds": 2, "importance_weight_cap": 2.0, "num_epochs": 2},
}
"""By method: settings of the run, beside those of `method_runs`."""
MIDDLES = [
    ("prefix_rft_adaptive", 1),
    ("prefix_rft_adaptive", 3),
    ("relift", 1),
    ("relift", 2),
    ("relift", 3),
    ("sft_rft", 1),
    ("sft_rft", 2),  # SFT's last iteration is done
    ("sft_rft", 3),
    ("luffy", 2),
    ("rft", 2),
]
"""Methods, and the last iteration before the restore."""


@pytest.mark.parametrize(("name", "middle"), MIDDLES)
def test_a_run_restored_in_the_middle_continues_bit_for_bit(method_run, name, middle):
    run = method_run(name, **SETTINGS[name])
    algo = PrefixRFT.from_checkpoint(run.checkpoints[middle])
    assert algo.iteration == middle
    for iteration in range(middle + 1, NUM_ITERATIONS + 1):
        assert numbers_of(algo.train()) == run.numbers[iteration]
        assert rollouts_of(run.run_dir, iteration) == run.rollouts[iteration]
        for key, value in weights_of(algo).items():
            assert (value == run.weights[iteration][key]).all(), key
    algo.stop()
    rows = read_metrics(run.run_dir)
    assert [row["training_iteration"] for row in rows] == list(range(1, NUM_ITERATIONS + 1))


def numbers_after(algo: PrefixRFT) -> list[dict]:
    """The metrics of the iterations that are left, in an algorithm that is then stopped."""
    numbers = [numbers_of(algo.train()) for _ in range(algo.iteration, NUM_ITERATIONS)]
    algo.stop()
    return numbers


@pytest.mark.parametrize(("name", "middle"), [("prefix_rft_adaptive", 2), ("relift", 2)])
def test_a_run_that_forgets_its_feedback_goes_on_differently(
    method_run, make_config, tmp_path, name, middle
):
    run = method_run(name)
    config = method_config(make_config, name).reporting(run_dir=str(tmp_path))
    algo = PrefixRFT.from_checkpoint(run.checkpoints[middle], config=config)
    state = algo.get_state()["feedback"]
    assert state["failed"] if name == "relift" else state["schedule_state"]["low"] < 0.75
    algo._feedback = CarriedOver(algo.method.stage_at(0))
    assert numbers_after(algo) != [run.numbers[i] for i in range(middle + 1, NUM_ITERATIONS + 1)]


def test_a_run_that_forgets_its_second_optimizer_goes_on_differently(
    method_run, make_config, tmp_path
):
    run = method_run("relift")
    with_step = [i for i, numbers in run.numbers.items() if "imitation_step/loss" in numbers]
    middle = with_step[0]
    assert len(with_step) > 1
    config = method_config(make_config, "relift").reporting(run_dir=str(tmp_path))
    algo = PrefixRFT.from_checkpoint(run.checkpoints[middle], config=config)
    learner = algo.learner_group._learner
    assert learner.get_optimizer(DEFAULT_MODULE_ID, "imitation").state
    learner.get_optimizer(DEFAULT_MODULE_ID, "imitation").state.clear()
    while algo.iteration < with_step[1]:
        numbers = numbers_of(algo.train())
    # The step itself sees the same loss; what it does to the weights depends on its moments.
    assert numbers["imitation_step/loss"] == run.numbers[with_step[1]]["imitation_step/loss"]
    expected = run.weights[with_step[1]]
    assert any((value != expected[key]).any() for key, value in weights_of(algo).items())
    algo.stop()


@pytest.mark.parametrize(("old", "new"), [("relift", "prefix_rft_adaptive"), ("sft_rft", "relift")])
def test_a_run_may_go_on_with_another_method(method_run, make_config, tmp_path, old, new, caplog):
    checkpoint = method_run(old).checkpoints[2]
    config = method_config(make_config, new).reporting(run_dir=str(tmp_path))
    config.checkpointing(accept_changed=["method", "verifier"])
    with caplog.at_level(logging.WARNING, logger="prefix_rft_rllib"):
        algo = PrefixRFT.from_checkpoint(checkpoint, config=config)
    expected = method_run(old).weights[2]
    assert all((value == expected[key]).all() for key, value in weights_of(algo).items())
    left_out = {"relift": ["imitation"], "sft_rft": ["stage_1", "stage_2"]}[old]
    assert [name for name in left_out if f"_{name}' belongs to another" in caplog.text] == left_out
    # What the other method remembered is left out; a shared optimizer goes on.
    assert algo._feedback.get_state() == CarriedOver(algo.method.stage_at(0)).get_state()
    state = algo.learner_group._learner.get_optimizer(DEFAULT_MODULE_ID).state
    assert bool(state) == (old == "relift")
    assert len(numbers_after(algo)) == 2


def test_a_restored_run_takes_the_optimizer_settings_of_its_own_config(
    method_run, make_config, tmp_path
):
    # As PopulationBasedTraining changes them; `lr` is set in every step anyway.
    config = method_config(make_config, "relift", weight_decay=0.1, adam_betas=(0.5, 0.9))
    config.reporting(run_dir=str(tmp_path))
    algo = PrefixRFT.from_checkpoint(method_run("relift").checkpoints[3], config=config)
    learner = algo.learner_group._learner
    for name in ("default_optimizer", "imitation"):
        optimizer = learner.get_optimizer(DEFAULT_MODULE_ID, name)
        assert optimizer.state
        for group in optimizer.param_groups:
            assert (group["weight_decay"], group["betas"]) == (0.1, (0.5, 0.9))
    algo.stop()
