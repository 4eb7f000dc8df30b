"""The rollout log: every line from a run directory written by hand."""

import pytest

from prefix_rft_rllib.reports.rollout_log import iteration_log, kept_prefix_weights
from prefix_rft_rllib.runs.run_directory import RunDirectory
from tests.run_records import record
from tests.small_configs import HOSTILE_TEXT


@pytest.fixture
def run_dir(tmp_path):
    run = RunDirectory(tmp_path)
    selections = [
        {"region": "response", "num_region_tokens": 50, "num_kept_tokens": 50},
        {"region": "prefix", "num_region_tokens": 9, "num_kept_tokens": 2},
    ]
    plain = record(iteration=1, prefix_fraction=0.0, problem_id="without prefix")
    run.write_rollouts(1, [plain, record(iteration=1)])
    run.write_minibatches(1, [{"minibatch": 0, "selections": selections}])
    run.write_minibatches(2, [{"minibatch": 5, "selections": selections}])
    counts = {"num_groups_with_signal": 1, "num_groups": 2, "verdicts/CORRECT": 3}
    numbers = {**counts, "verdicts/WRONG": 0, "verdicts/TIMEOUT": 1}
    for iteration in (1, 2):
        run.write_metrics(iteration, {f"rollouts/{name}": n for name, n in numbers.items()})
    run.close()
    return tmp_path


def test_the_log_of_an_iteration_by_hand(run_dir):
    assert iteration_log(run_dir, 1).splitlines() == [
        "  groups with signal: 1 of 2; verdicts: CORRECT 3, TIMEOUT 1",
        "  p1: u 0.300 in [0.050, 0.625], drawn 3 tokens, prefix 2 (cut), CORRECT, "
        "advantage +0.875, weights of kept tokens [0.875]",
        "  minibatch 0: kept 2 of 9 prefix tokens",
    ]


def test_an_iteration_without_recorded_rollouts_logs_what_there_is(run_dir):
    lines = iteration_log(run_dir, 2).splitlines()
    assert lines == [
        "  groups with signal: 1 of 2; verdicts: CORRECT 3, TIMEOUT 1",
        "  minibatch 5: kept 2 of 9 prefix tokens",
    ]


def test_an_iteration_that_is_not_there_is_an_error_with_those_that_are(run_dir):
    with pytest.raises(ValueError, match=r"`iteration` \(3\) is not in .*It has: 1 to 2\."):
        iteration_log(run_dir, 3)


def test_weights_are_those_of_kept_prefix_tokens_only():
    changes = {"kept": [True, False, True, True, True], "weight": [0.5, 0.25, 1.0, 2.0, 3.0]}
    assert kept_prefix_weights(record(**changes)) == [0.5]
    assert kept_prefix_weights(record(weight=None)) == []


def logged(tmp_path, numbers, **changes) -> list[str]:
    run = RunDirectory(tmp_path)
    run.write_rollouts(1, [record(iteration=1, **changes)])
    run.write_minibatches(1, [])
    counts = {"num_groups_with_signal": 1, "num_groups": 2, **numbers}
    run.write_metrics(1, {f"rollouts/{name}": n for name, n in counts.items()})
    run.close()
    return iteration_log(tmp_path, 1).split("\n")


@pytest.mark.parametrize(
    ("details", "shown"),
    [
        (
            {"reason": "not equal", "test": "assert f(1) == 2", "got": "3", "output": "hm"},
            "WRONG (not equal; test assert f(1) == 2; got 3), advantage",
        ),
        ({"reason": "not done after 5 s", "isolation": "none"}, "WRONG (not done after 5 s), adv"),
        ({"got": 0.25}, "WRONG (got 0.25), advantage"),
        ({"num_passed": 1}, "WRONG, advantage"),
        (
            {"got": "\x1b[31m" + "a" * 35 + "b" * 1000 + "c" * 40},
            r"WRONG (got \x1b[31m" + "a" * 35 + " ... " + "c" * 40 + "), advantage",
        ),
    ],
)
def test_a_rollout_tells_the_first_failing_test_and_what_came_back(tmp_path, details, shown):
    _, line, _ = logged(tmp_path, {}, verdict="WRONG", verdict_details=details)
    assert shown in line


def test_hostile_text_stays_in_one_line_of_printable_ascii(tmp_path):
    details = dict.fromkeys(("reason", "test", "got"), HOSTILE_TEXT)
    lines = logged(tmp_path, {}, verdict_details=details)
    assert len(lines) == 3  # summary, rollout, and what follows the last line break
    assert all(line.isascii() and (line.isprintable() or not line) for line in lines)
    assert len(lines[1]) < 3000


@pytest.mark.parametrize(
    ("numbers", "end"),
    [
        ({}, "verdicts: none"),
        ({"num_without_isolation": 0}, "verdicts: none"),
        (
            {"num_without_isolation": 3},
            "verdicts: none; code of 3 rollouts ran without isolation",
        ),
    ],
)
def test_code_that_ran_without_isolation_is_told_in_the_summary(tmp_path, numbers, end):
    assert logged(tmp_path, numbers)[0].endswith(end)
