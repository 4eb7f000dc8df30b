"""The same algorithm under Tune: a grid, one run directory per trial, checkpoints."""

import json
from pathlib import Path

import pytest
from ray import tune
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from prefix_rft_rllib import PrefixRFT
from prefix_rft_rllib.run_directory import read_metrics, read_minibatches, read_rollouts

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]

NUM_ITERATIONS = 2
LEARNING_RATES = (1e-2, 1e-3)
KEEP_FRACTIONS = (0.2, 1.0)


@pytest.fixture(scope="module")
def results(cluster, make_config, tmp_path_factory) -> tune.ResultGrid:
    """A 2x2 grid, started from a config by the registered name."""
    tune.register_trainable("PrefixRFT", PrefixRFT)
    config = make_config(
        lr=tune.grid_search(list(LEARNING_RATES)),
        method_config={
            "num_schedule_iterations": 4,
            "entropy_keep_fraction": tune.grid_search(list(KEEP_FRACTIONS)),
        },
    )
    tuner = tune.Tuner(
        "PrefixRFT",
        param_space=config,
        run_config=tune.RunConfig(
            name="grid",
            storage_path=str(tmp_path_factory.mktemp("tune")),
            stop={"training_iteration": NUM_ITERATIONS},
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
            verbose=0,
        ),
    )
    return tuner.fit()


def settings_of(result) -> tuple[float, float]:
    return result.config["lr"], result.config["method_config"]["entropy_keep_fraction"]


def test_every_trial_ran_with_its_own_settings(results):
    assert not results.errors
    settings = sorted(settings_of(result) for result in results)
    assert settings == sorted((lr, keep) for lr in LEARNING_RATES for keep in KEEP_FRACTIONS)
    for result in results:
        assert result.metrics["training_iteration"] == NUM_ITERATIONS
        lr, keep_fraction = settings_of(result)
        learner = result.metrics["learners"]["default_policy"]
        assert learner["lr"] == lr
        is_all_kept = learner["num_kept_prefix_tokens"] == learner["num_prefix_tokens"]
        assert is_all_kept == (keep_fraction == 1.0)


def test_every_trial_directory_is_a_run_directory(results):
    for result in results:
        run_dir = Path(result.path)
        config = json.loads((run_dir / "config.json").read_text())
        assert (config["lr"], config["method_config"]["entropy_keep_fraction"]) == settings_of(
            result
        )
        rows = read_metrics(run_dir)
        assert [row["training_iteration"] for row in rows] == [1, 2]
        assert rows[-1]["rollouts/reward_mean"] == result.metrics["rollouts"]["reward_mean"]
        assert len(read_minibatches(run_dir)) == 2 * NUM_ITERATIONS
        files = sorted((run_dir / "rollouts").iterdir())
        assert len(files) == NUM_ITERATIONS
        assert list(read_rollouts(files[0]))


def test_trials_differ_by_their_settings_only(results):
    # The first rollouts are sampled from the same weights with the same plan.
    first = {str(read_metrics(result.path)[0]["rollouts/reward_mean"]) for result in results}
    assert len(first) == 1
    losses = {read_metrics(result.path)[0]["learner/grad_norm"] for result in results}
    assert len(losses) > 1


def test_tensorboard_finds_this_projects_scalars_in_every_trial(results):
    for result in results:
        rows = read_metrics(result.path)
        for name in ("rollouts/reward_mean", "learner/num_kept_prefix_tokens"):
            values = scalars_of(Path(result.path), name)
            assert values == pytest.approx({i + 1: row[name] for i, row in enumerate(rows)})


def scalars_of(directory: Path, name: str) -> dict[int, float]:
    """Values by step over all event files of a directory."""
    found = {}
    for file in directory.glob("events.out.tfevents*"):
        events = EventAccumulator(str(file)).Reload()
        for tag in events.Tags()["scalars"]:
            if tag.endswith(name) and not tag.startswith("ray/tune"):
                found |= {event.step: event.value for event in events.Scalars(tag)}
    return found


def test_a_trials_checkpoint_restores_and_trains_on(results, make_config, tmp_path):
    result = results[0]
    config = make_config(lr=result.config["lr"]).reporting(run_dir=str(tmp_path))
    algo = PrefixRFT.from_checkpoint(result.checkpoint.path, config=config)
    assert algo.iteration == NUM_ITERATIONS
    assert algo.train()["training_iteration"] == NUM_ITERATIONS + 1
    assert [row["training_iteration"] for row in read_metrics(tmp_path)] == [3]
    algo.stop()
