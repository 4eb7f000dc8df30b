"""The same algorithm under Tune: grids, methods, one run directory per trial, checkpoints."""

import json
import math
from pathlib import Path

import pytest
from ray import tune
from ray.tune import registry
from ray.tune.schedulers import PopulationBasedTraining
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from prefix_rft_rllib import PrefixRFT, methods
from prefix_rft_rllib.runs.run_directory import read_metrics, read_minibatches, read_rollouts
from tests.algorithm_runs import assert_close

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]

NUM_ITERATIONS = 2
LEARNING_RATES = (1e-2, 1e-3)
KEEP_FRACTIONS = (0.2, 1.0)


def count_samples(*, metrics_logger, samples, **kwargs) -> None:
    """A callback of the env runners."""
    metrics_logger.log_value(("mine", "num_samples"), len(samples), reduce="sum")


@pytest.fixture(scope="module")
def results(cluster, make_config, tmp_path_factory) -> tune.ResultGrid:
    """A 2x2 grid, started from a config by the name that importing `PrefixRFT` registers."""
    config = make_config(
        lr=tune.grid_search(list(LEARNING_RATES)),
        method_config={
            "num_schedule_iterations": 4,
            "entropy_keep_fraction": tune.grid_search(list(KEEP_FRACTIONS)),
        },
    )
    config.callbacks(on_sample_end=count_samples)
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


def test_what_callbacks_log_reaches_tune_and_every_trial(results):
    for result in results:
        assert result.metrics["env_runners"]["mine"]["num_samples"] == 16
        rows = read_metrics(result.path)
        assert [row["env_runners/mine/num_samples"] for row in rows] == [16, 16]
        assert scalars_of(Path(result.path), "mine/num_samples") == {1: 16.0, 2: 16.0}


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


METHOD_CONFIGS = {"relift": {"buffer_size": 2, "imitation_lr": 1e-3}, "rft": {}}


def test_tune_chooses_among_methods_with_their_settings(cluster, make_config, tmp_path):
    ready = methods.luffy(gamma=0.5)
    config = make_config(
        method=tune.grid_search([*METHOD_CONFIGS, ready]),
        # The settings go with the method; a ready one has none.
        method_config=tune.sample_from(lambda spec: METHOD_CONFIGS.get(spec.config.method, {})),
    )
    run_config = tune.RunConfig(
        storage_path=str(tmp_path), stop={"training_iteration": 1}, verbose=0
    )
    results = tune.Tuner(PrefixRFT, param_space=config, run_config=run_config).fit()
    assert not results.errors
    by_method = {result.config["method"]: result for result in results}
    assert by_method.keys() == {"relift", "rft", ready}
    for method, result in by_method.items():
        written = json.loads((Path(result.path) / "config.json").read_text())
        name = method if isinstance(method, str) else repr(method)
        assert (written["method"], written["method_config"]) == (
            name,
            METHOD_CONFIGS.get(method, {}),
        )
        numbers = result.metrics["rollouts"]
        assert numbers["num_rollouts"] == (12 if method == ready else 16)


PERTURBED = 0.5
"""What PopulationBasedTraining changes `entropy_keep_fraction` to."""


@pytest.fixture(scope="module")
def population(cluster, make_config, tmp_path_factory) -> tune.ResultGrid:
    """Two trials; the one that keeps fewer prefix tokens counts as the better one."""
    config = make_config(
        method="prefix_rft_adaptive",
        method_config={"entropy_keep_fraction": tune.grid_search(list(KEEP_FRACTIONS))},
    )
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        metric="learners/default_policy/num_kept_prefix_tokens",
        mode="min",
        perturbation_interval=2,
        quantile_fraction=0.5,
        resample_probability=1.0,
        synch=True,
        hyperparam_mutations={"method_config": {"entropy_keep_fraction": lambda: PERTURBED}},
    )
    tuner = tune.Tuner(
        PrefixRFT,
        param_space=config,
        tune_config=tune.TuneConfig(scheduler=scheduler),
        run_config=tune.RunConfig(
            name="population",
            storage_path=str(tmp_path_factory.mktemp("population")),
            stop={"training_iteration": 4},
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=2),
            verbose=0,
        ),
    )
    return tuner.fit()


def test_a_population_trains_on_with_a_changed_method_config(population):
    assert not population.errors
    kept, changed = (Path(result.path) for result in population)
    for run_dir, fractions in (
        (kept, [0.2] * 4),
        (changed, [1.0, 1.0, PERTURBED, PERTURBED]),
    ):
        for row in read_minibatches(run_dir):
            (prefix,) = [s for s in row["selections"] if s["region"] == "prefix"]
            fraction = fractions[row["training_iteration"] - 1]
            expected = math.ceil(fraction * prefix["num_region_tokens"])
            assert prefix["num_kept_tokens"] == expected
    config = json.loads((changed / "config.json").read_text())
    assert config["method_config"] == {"entropy_keep_fraction": PERTURBED}
    # One directory with a row per iteration, although the trial was moved to another's checkpoint.
    assert [row["training_iteration"] for row in read_metrics(changed)] == [1, 2, 3, 4]


def test_an_exploiting_trial_goes_on_from_the_others_weights_optimizer_and_window(
    population, make_config, tmp_path
):
    kept, changed = (Path(result.path) for result in population)
    # The control: the better trial's checkpoint of iteration 2, in the driver.
    config = make_config(
        method="prefix_rft_adaptive", method_config={"entropy_keep_fraction": PERTURBED}
    )
    config.reporting(run_dir=str(tmp_path))
    algo = PrefixRFT.from_checkpoint(str(kept / "checkpoint_000000"), config=config)
    assert algo.iteration == 2
    for _ in range(2):
        algo.train()
    algo.stop()
    for row, expected in zip(read_metrics(changed)[2:], read_metrics(tmp_path), strict=True):
        assert_close(without_times(row), without_times(expected))
    windows = [row["rollouts/prefix_window_low"] for row in read_metrics(changed)]
    assert windows[1] != windows[2] != windows[3]
    assert windows[2] == read_metrics(kept)[2]["rollouts/prefix_window_low"]


def without_times(row: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if not key.startswith("time/")}


def test_a_config_makes_the_name_known_in_the_present_cluster(cluster, make_config, monkeypatch):
    # A cluster forgets with its end, and the next one of the process starts with no name.
    known = dict[tuple[str, str], bytes]()
    monkeypatch.setattr(registry, "_internal_kv_put", lambda k, v, **_: known.__setitem__(k, v))
    monkeypatch.setattr(registry, "_internal_kv_get", known.get)
    assert not registry._global_registry.contains(registry.TRAINABLE_CLASS, "PrefixRFT")
    make_config()
    assert registry.get_trainable_cls("PrefixRFT") is PrefixRFT
