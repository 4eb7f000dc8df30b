"""Checkpoints that older versions wrote load, and their runs go on with the same numbers.

The folder of a version holds a small model, a checkpoint of a run of four iterations after the
second, and the numbers of all four as that version printed them.
"""

import json
from pathlib import Path

import pytest

from prefix_rft_rllib import PrefixRFT
from tests.algorithm_runs import numbers_of

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]

ROOT = Path(__file__).parents[1]
VERSIONS = ROOT / "tests" / "checkpoints"
RUNS = sorted(path.with_suffix("") for path in VERSIONS.glob("*/*.json"))


def test_there_are_runs_with_rollouts_sampled_ahead_and_with_a_buffer():
    assert {run.name for run in RUNS} == {"prefix_rft_adaptive", "relift"}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}-{run.name}")
def test_a_run_of_an_older_version_goes_on_with_its_numbers(run, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)  # the model's directory is named from here
    expected = json.loads(run.with_suffix(".json").read_text())
    config = PrefixRFT.from_checkpoint(str(run)).config.copy(copy_frozen=False)
    algo = PrefixRFT.from_checkpoint(str(run), config=config.reporting(run_dir=str(tmp_path)))
    assert algo.iteration == 2
    for iteration in (3, 4):
        numbers = numbers_of(algo.train())
        assert numbers == pytest.approx(expected[str(iteration)], rel=1e-5, abs=1e-6)
    algo.stop()
