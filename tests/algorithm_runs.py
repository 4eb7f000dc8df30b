"""What algorithm tests compare: an uninterrupted run, and tolerances."""

import dataclasses
import signal
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.rllib.core import DEFAULT_MODULE_ID

from prefix_rft_rllib import PrefixRFT, PrefixRFTConfig, metrics
from prefix_rft_rllib.evaluation.held_out import evaluate_problems
from prefix_rft_rllib.runs.run_directory import read_rollouts

NUM_ITERATIONS = 3
ROLLOUT_FIELDS = (
    "problem_id",
    "group_id",
    "member",
    "prefix_fraction",
    "num_prefix_tokens",
    "was_cut",
    "minibatch",
    "verdict",
    "advantage",
    "response_ids",
)
"""What must be equal for the same plan and the same weights."""


@dataclasses.dataclass
class Run:
    """What an uninterrupted run did, by iteration from 1."""

    numbers: dict[int, dict[str, float]]
    rollouts: dict[int, list]
    weights: dict[int, dict[str, np.ndarray]]
    checkpoints: dict[int, str]
    run_dir: Path
    model_dir: Path


def numbers_of(result: dict[str, Any]) -> dict[str, float]:
    """This project's metrics of one iteration, without times."""
    learner = result["learners"][DEFAULT_MODULE_ID]
    own = {key: learner[key] for key in metrics.LEARNER_METRICS if key in learner}
    step = result.get(metrics.IMITATION_STEP, {})
    tree = {"rollouts": result[metrics.ROLLOUTS], "learner": own, "imitation_step": step}
    return metrics.flatten(tree)


def weights_of(algo: PrefixRFT) -> dict[str, np.ndarray]:
    weights = algo.learner_group.get_weights()[DEFAULT_MODULE_ID]
    return {name: np.array(value) for name, value in weights.items()}


def rollouts_of(run_dir: str | Path, iteration: int) -> list:
    records = read_rollouts(Path(run_dir) / "rollouts" / f"iteration_{iteration:06d}.jsonl.gz")
    return [[getattr(record, name) for name in ROLLOUT_FIELDS] for record in records]


def assert_close(numbers: dict[str, float], expected: dict[str, float]) -> None:
    """Equal up to float32 rounding, which differs between batch shapes and processes."""
    assert numbers.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = 1e-4 if "engine_logp_gap" in name else 2e-5
        assert numbers[name] == pytest.approx(value, rel=2e-4, abs=tolerance), name


def assert_same_weights(weights: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(weights[name], value, rtol=0, atol=1e-6, err_msg=name)


def assert_same_rollouts(run_dir, iteration: int, run: Run) -> None:
    """Everything that comes from the plan is equal; advantages up to rounding."""
    own, expected = rollouts_of(run_dir, iteration), run.rollouts[iteration]
    advantage = ROLLOUT_FIELDS.index("advantage")
    assert [r[:advantage] + r[advantage + 1 :] for r in own] == [
        r[:advantage] + r[advantage + 1 :] for r in expected
    ]
    assert [r[advantage] for r in own] == pytest.approx([r[advantage] for r in expected])


def assert_evaluates(algo: PrefixRFT) -> None:
    problems = algo.problem_set.train[:2]
    first = evaluate_problems(algo, problems, num_samples=2)
    assert first == evaluate_problems(algo, problems, num_samples=2)
    assert 0 <= first[metrics.AVG_AT_K] <= first[metrics.PASS_AT_K] <= 1
    assert algo.evaluate() is not None  # no problem is held out here: nothing to report


def train_undisturbed(
    config: PrefixRFTConfig,
    run_dir: Path,
    num_iterations: int = NUM_ITERATIONS,
    saved: Collection[int] | None = None,
) -> Run:
    """Train in the driver, and keep everything that another run may be compared with.

    Checkpoints are those of the iterations in `saved`, by default of all.
    """
    config.reporting(num_logged_groups=config.num_problems_per_iteration)
    algo = config.reporting(run_dir=str(run_dir)).build_algo()
    done = Run({}, {}, {}, {}, run_dir, run_dir / "model")
    for _ in range(num_iterations):
        result = algo.train()
        iteration = result["training_iteration"]
        done.numbers[iteration] = numbers_of(result)
        done.rollouts[iteration] = rollouts_of(run_dir, iteration)
        done.weights[iteration] = weights_of(algo)
        if saved is None or iteration in saved:
            path = str(run_dir / f"checkpoint_{iteration}")
            done.checkpoints[iteration] = algo.save_to_path(path)
    algo.save_pretrained(done.model_dir)
    algo.stop()
    return done


def signal_before(monkeypatch, owner, name: str, number: signal.Signals) -> None:
    """Send a signal to this process when a method is called for the first time."""
    method = getattr(owner, name)

    def signalled(*args, **kwargs):
        monkeypatch.undo()
        signal.raise_signal(number)
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, signalled)
