"""The progress table: aligned, at most 120 columns, "-" for what a method does not have."""

import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.runs import progress
from prefix_rft_rllib.runs.progress import (
    ProgressTable,
    final_table,
    format_count,
    format_number,
    held_out_results,
)

ROW = {
    "rollouts/reward_plain_mean": 0.0523,
    "rollouts/reward_prefix_mean": 0.4137,
    "rollouts/prefix_window_low": 0.95,
    "rollouts/prefix_fraction_mean": 0.9312,
    "learner/num_kept_prefix_tokens": 1234,
    "learner/num_prefix_tokens": 6170,
    "learner/entropy_response": 0.31234,
    "rollouts/response_length_mean": 188.42,
    "rollouts/truncated_fraction": 0.0123,
    "time/tokens_per_second": 23123.4,
    "time/generation": 4.314,
    "time/verification": 0.42,
    "time/learning": 3.9,
    "time/sync": 0.02,
}
CELLS = [
    "0.052",
    "0.414",
    "0.950",
    "0.931",
    "1234/6170",
    "0.3123",
    "188.4",
    "1.2",
    "23123",
    "4.31",
    "0.42",
    "3.90",
    "0.02",
]


def printed(*rows: dict[str, float]) -> list[str]:
    stream = io.StringIO()
    table = ProgressTable(stream)
    for iteration, row in enumerate(rows, start=1):
        table.print_row(iteration, row)
    return stream.getvalue().splitlines()


def test_a_row_shows_its_numbers_under_the_header():
    upper, lower, line = printed(ROW)
    assert line.split() == ["1", *CELLS]
    assert lower.split()[:3] == ["iter", "plain", "prefix"]
    # Right-aligned: each cell ends where its header ends.
    ends = [match.end() for match in re.finditer(r"\S+", line)]
    assert len({len(upper), len(lower), len(line)}) == 1
    labels = {"plain": 0, "low": 2, "kept/all": 4, "nats": 5}
    for label, column in labels.items():
        assert lower.index(f" {label}") + len(label) + 1 == ends[column + 1]
    assert upper.index("tokens", upper.index("cut off")) + len("tokens") == ends[9]
    assert upper.endswith("sync")


@pytest.mark.parametrize("column", range(len(CELLS)))
def test_every_missing_value_is_shown_as_a_dash(column):
    keys = [[key] for key in ROW if "num_" not in key]
    keys.insert(4, ["learner/num_kept_prefix_tokens", "learner/num_prefix_tokens"])
    row = {key: value for key, value in ROW.items() if key not in keys[column]}
    expected = [*CELLS]
    expected[column] = "-"
    _, _, line = printed(row)
    assert line.split() == ["1", *expected]


def test_rows_of_methods_without_prefix_or_rollouts_stay_aligned():
    lines = printed(ROW, {}, {"learner/num_prefix_tokens": 0, "learner/num_kept_prefix_tokens": 0})
    assert len({len(line) for line in lines}) == 1
    assert lines[3].split() == ["2", *["-"] * 13]
    assert lines[4].split() == ["3", *["-"] * 4, "0/0", *["-"] * 8]


def test_the_header_comes_again_every_twenty_rows():
    lines = printed(*[ROW] * 41)
    headers = [number for number, line in enumerate(lines) if "reward" in line]
    # Two header lines and 20 rows each.
    assert headers == [0, 22, 44]
    assert len(lines) == 41 + 3 * 2


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(min_value=0), min_size=14, max_size=14),
    st.integers(min_value=1, max_value=10**9),
)
def test_no_number_breaks_the_columns(values, iteration):
    stream = io.StringIO()
    table = ProgressTable(stream)
    table.print_row(iteration, dict(zip(ROW, values, strict=True)))
    lines = stream.getvalue().splitlines()
    assert len(lines[-1].split()) == 14
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= 120


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0, "0"),
        (99_999, "99999"),
        (99_999.5, "100k"),
        (123_456, "123k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (12_345_678, "12.3M"),
        (1e15, "1e+15"),
        (float("nan"), "nan"),
    ],
)
def test_counts_are_short(value, shown):
    assert format_count(value) == shown


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (None, 3, "-"),
        (0.12345, 3, "0.123"),
        (-0.5, 3, "-0.500"),
        (1234.5678, 3, "1234.57"),
        (1234567.2, 3, "1234567"),
        (12345678.0, 3, "1.2e+07"),
        (-12345678.0, 3, "-1e+07"),
        (1e300, 3, "1e+300"),
        (-1.5e300, 3, "-2e+300"),
        (float("-inf"), 3, "-inf"),
    ],
)
def test_numbers_lose_digits_before_they_lose_their_place(value, digits, shown):
    # -1.2e+07 has eight characters, one too many.
    assert format_number(value, digits) == shown


def test_held_out_results_follow_on_a_line_of_their_own():
    evaluation = {
        "evaluation/new/avg_at_k": 0.0523,
        "evaluation/new/greedy_accuracy": 0.04,
        "evaluation/new/pass_at_k": 0.2,
        "evaluation/harder/greedy_accuracy": 0.01,
    }
    lines = printed(ROW | evaluation, ROW)
    assert (
        lines[3] == "       held-out new: avg@k 0.052, greedy 0.040; harder: avg@k -, greedy 0.010"
    )
    assert lines[4].split() == ["2", *CELLS]


def test_many_held_out_sets_wrap_between_sets():
    row = {f"evaluation/set number {n}/avg_at_k": n / 10 for n in range(9)}
    lines = printed(row)[3:]
    assert len(lines) > 1
    assert max(map(len, lines)) <= 120
    for n in range(9):
        assert sum(f"set number {n}: avg@k {n / 10:.3f}, greedy -" in line for line in lines) == 1


def test_held_out_results_are_read_by_set():
    row = {"evaluation/a/b/avg_at_k": 0.5, "evaluation/c/seconds": 3.0, "rollouts/avg_at_k": 1.0}
    assert held_out_results(row) == {"a/b": {"avg_at_k": 0.5}}


def test_the_final_table_compares_before_and_after():
    before = {
        "evaluation/new problems/greedy_accuracy": 0.04,
        "evaluation/new problems/avg_at_k": 0.0523,
        "evaluation/new problems/pass_at_k": 0.2,
    }
    after = {
        "evaluation/new problems/greedy_accuracy": 0.86,
        "evaluation/new problems/avg_at_k": 0.8512,
        "evaluation/harder/pass_at_k": 1.0,
    }
    assert final_table(before, after).splitlines() == [
        "held-out set   greedy             avg@k            pass@k",
        "               before    after   before    after   before    after",
        "new problems    0.040    0.860    0.052    0.851    0.200        -",
        "harder              -        -        -        -        -    1.000",
    ]


def test_the_final_table_of_nothing_is_its_header():
    assert len(final_table({}, {}).splitlines()) == 2


def test_the_documented_columns_are_those_of_the_table():
    table = Path(progress.__file__).parents[2] / "docs" / "run_directory.md"
    section = table.read_text().split("\n## The progress table\n")[1]
    documented = re.findall(r"`((?:rollouts|learner|time)/\w+)`", section)
    assert sorted(documented) == sorted(ROW)
