"""Groups without signal are replaced by groups of other problems (DAPO), if the config says so."""

import pytest

from prefix_rft_rllib.runs.run_directory import read_rollouts
from tests.algorithm_runs import numbers_of
from tests.method_runs import method_config
from tests.small_configs import NEVER_RIGHT, SELDOM_RIGHT

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]


def train(make_config, run_dir, num_iterations, env_config, **training):
    """Numbers and records of every iteration."""
    config = make_config(env_config, **training).reporting(
        run_dir=str(run_dir), num_logged_groups=4
    )
    algo = config.build_algo()
    numbers = [numbers_of(algo.train()) for _ in range(num_iterations)]
    algo.stop()
    files = sorted((run_dir / "rollouts").iterdir())
    return numbers, [read_rollouts(file) for file in files]


def by_group(records):
    groups: dict[int, list] = {}
    for record in records:
        groups.setdefault(record.group_id, []).append(record)
    return groups


def test_groups_without_signal_are_replaced_by_groups_of_other_problems(make_config, tmp_path):
    env_config = {"verifier": SELDOM_RIGHT}
    settings = {"method": "rft", "method_config": {}}
    before, _ = train(make_config, tmp_path / "0", 2, env_config, **settings)
    numbers, records = train(
        make_config, tmp_path / "2", 2, env_config, max_resampling_rounds=2, **settings
    )
    # The first iteration samples the same groups first.
    num_without_signal = 4 - before[0]["rollouts/num_groups_with_signal"]
    assert num_without_signal > 0
    assert before[0]["rollouts/num_groups_replaced"] == 0
    assert numbers[0]["rollouts/num_groups_replaced"] >= num_without_signal
    for row, rows in zip(numbers, records, strict=True):
        # What was sampled is counted, what was replaced too; what is trained is one batch.
        num_sampled = row["rollouts/num_groups"]
        assert num_sampled == 4 + row["rollouts/num_groups_replaced"] <= 12
        assert row["rollouts/num_rollouts"] == 4 * num_sampled
        groups = by_group(rows)
        assert len(groups) == 4
        assert len(rows) == 16
        assert max(groups) < num_sampled
        assert len({group[0].problem_id for group in groups.values()}) == 4
        without_signal = [group for group in groups.values() if len({r.reward for r in group}) == 1]
        assert 4 - len(without_signal) == row["rollouts/num_groups_with_signal"]
        assert row["learner/num_trained_rows"] == 16 - 4 * len(without_signal)
        assert {record.minibatch for record in rows} == {0, 1}


def test_a_run_without_any_signal_ends_its_rounds(make_config, tmp_path):
    (row,), (rows,) = train(
        make_config, tmp_path, 1, {"verifier": NEVER_RIGHT}, max_resampling_rounds=3
    )
    assert row["rollouts/num_groups"] == 16
    assert row["rollouts/num_groups_replaced"] == 12
    assert row["rollouts/num_groups_with_signal"] == 0
    assert row["learner/grad_norm"] == 0.0
    # The last round's groups stay; with 12 problems they repeat those of the first.
    assert sorted(by_group(rows)) == [12, 13, 14, 15]


def test_groups_with_signal_are_never_replaced(make_config, tmp_path, run):
    (row,), (rows,) = train(make_config, tmp_path, 1, {}, max_resampling_rounds=2)
    assert run.numbers[1]["rollouts/num_groups_with_signal"] == 4
    assert row == run.numbers[1]
    assert sorted(by_group(rows)) == [0, 1, 2, 3]


def test_a_stage_that_samples_nothing_has_nothing_to_replace(make_config, tmp_path):
    config = method_config(make_config, "sft_rft", max_resampling_rounds=2)
    algo = config.reporting(run_dir=str(tmp_path)).build_algo()
    numbers = numbers_of(algo.train())
    assert numbers["rollouts/num_rollouts"] == numbers["rollouts/num_groups_replaced"] == 0
    assert numbers["rollouts/num_groups"] == 4
    algo.stop()


def test_the_failed_problems_of_replaced_groups_wait_for_an_imitation_step(make_config, tmp_path):
    config = method_config(
        make_config,
        "relift",
        max_resampling_rounds=2,
        method_config={"buffer_size": 12, "imitation_lr": 1e-3},
    )
    algo = config.reporting(run_dir=str(tmp_path)).build_algo()
    numbers = numbers_of(algo.train())
    assert numbers["rollouts/num_groups_replaced"] > 0
    num_failed = numbers["rollouts/num_groups"] - numbers["rollouts/num_groups_with_signal"]
    assert len(set(algo._feedback.failed)) == len(algo._feedback.failed) == num_failed
    algo.stop()
