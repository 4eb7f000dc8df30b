"""The run directory: what is written is read back, once, whoever was killed or restored."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest

from prefix_rft_rllib.runs.run_directory import (
    RunDirectory,
    read_metrics,
    read_minibatches,
    usable_directory,
)
from tests.run_records import (
    files_of,
    scalars_of,
    texts_of,
    write_iterations,
)


def test_metrics_come_back_as_they_were_written(tmp_path):
    run = RunDirectory(tmp_path / "new" / "run")
    row = {"rollouts/reward_mean": 0.1 + 0.2, "learner/num_prefix_tokens": 2**60 + 1}
    run.write_metrics(1, row)
    run.write_metrics(5, {"learner/lr": np.float32(1e-6), "rollouts/num_rollouts": np.int64(8)})
    # Flushed: readable before the directory is closed.
    assert read_metrics(run.path) == [
        {"training_iteration": 1, **row},
        {"training_iteration": 5, "learner/lr": 9.999999974752427e-07, "rollouts/num_rollouts": 8},
    ]
    first = (run.path / "metrics.jsonl").read_text().splitlines()[0]
    assert first.startswith('{"training_iteration": 1, ')
    run.close()
    run.close()


def test_numbers_that_json_lacks_are_written_as_null_and_strings(tmp_path):
    run = RunDirectory(tmp_path)
    run.write_metrics(1, {"a": math.nan, "b": math.inf, "c": -math.inf})
    run.close()
    line = (tmp_path / "metrics.jsonl").read_text()
    assert line == '{"training_iteration": 1, "a": null, "b": "Infinity", "c": "-Infinity"}\n'
    (row,) = read_metrics(tmp_path)
    assert math.isnan(row["a"])
    assert (row["b"], row["c"]) == (math.inf, -math.inf)


def test_an_iteration_is_written_once(tmp_path):
    run = RunDirectory(tmp_path, iteration=3)
    run.write_metrics(4, {"a": 1.0})
    for iteration in (4, 3):
        with pytest.raises(ValueError, match=rf"`iteration` \({iteration}\) must be above 4"):
            run.write_metrics(iteration, {"a": 1.0})
    # An iteration that failed after its optimizer steps were noted is run again.
    run.write_minibatches(5, [{"loss": 1.0}])
    run.write_minibatches(5, [{"loss": 2.0}])
    assert read_minibatches(tmp_path) == [{"training_iteration": 5, "loss": 2.0}]
    run.close()


def test_settings_that_json_lacks_are_written_as_their_repr(tmp_path):
    run = RunDirectory(tmp_path)
    run.write_config({"old": 1})
    run.write_config(
        {"lr": 1e-6, "betas": (0.9, 0.999), "cls": RunDirectory, "nested": {1: {2}}, "none": None}
        | {"flag": True, "path": Path("x"), "array": np.arange(2), "nan": math.nan}
    )
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "lr": 1e-6,
        "betas": [0.9, 0.999],
        "cls": repr(RunDirectory),
        "nested": {"1": "{2}"},
        "none": None,
        "flag": True,
        "path": repr(Path("x")),
        "array": [0, 1],
        "nan": None,
    }
    # Settings alone open no event file.
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("kept", [0, 3, 6, 9])
def test_a_rollback_leaves_exactly_what_a_run_up_to_there_writes(tmp_path, kept):
    for name, numbers in (("long", range(1, 7)), ("short", range(1, min(kept, 6) + 1))):
        run = RunDirectory(tmp_path / name)
        write_iterations(run, numbers)
        run.close()
    again = RunDirectory(tmp_path / "long", iteration=kept)
    again.write_rollouts(kept + 1, [])  # nothing to write, but the run has gone on
    again.close()
    long, short = files_of(tmp_path / "long"), files_of(tmp_path / "short")
    if kept == 0:
        emptied = ("metrics.jsonl", "minibatches.jsonl", ".lock")
        assert [long.pop(name) for name in emptied] == [b"", b"", b""]
    assert long == short
    assert scalars_of(tmp_path / "long") == (scalars_of(tmp_path / "short") if kept else {})


def test_a_restored_run_goes_on_without_repeating_a_row_and_says_so(tmp_path, caplog):
    run = RunDirectory(tmp_path)
    write_iterations(run, range(1, 7))
    run.close()
    with caplog.at_level(logging.WARNING):
        again = RunDirectory(tmp_path, iteration=4)
        write_iterations(again, range(5, 8))
    again.close()
    assert [row["training_iteration"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]
    steps = [row["training_iteration"] for row in read_minibatches(tmp_path)]
    assert steps == [n for n in range(1, 8) for _ in range(2)]
    assert sorted(scalars_of(tmp_path)) == [1, 2, 3, 4, 5, 6, 7]
    assert len(texts_of(tmp_path, "rollouts/with_prefix")) == 7
    assert len(list((tmp_path / "rollouts").iterdir())) == 7
    (message,) = caplog.messages
    assert "after iteration 4" in message
    assert "2 rows of metrics.jsonl, 4 rows of minibatches.jsonl" in message
    assert "2 steps of TensorBoard events, 2 rollouts files" in message


def test_a_rollback_leaves_what_others_have_put_among_the_rollouts(tmp_path):
    run = RunDirectory(tmp_path)
    write_iterations(run, range(1, 4))
    run.close()
    copy = tmp_path / "rollouts" / "iteration_000003_best.jsonl.gz"
    copy.write_bytes(b"a copy")
    again = RunDirectory(tmp_path, iteration=1)
    again.write_rollouts(2, [])
    again.close()
    left = sorted(path.name for path in copy.parent.iterdir())
    assert left == ["iteration_000001.jsonl.gz", copy.name]


def test_nothing_is_touched_before_the_first_row_is_written(tmp_path):
    # RLlib builds an algorithm at iteration 0 and restores it afterwards.
    run = RunDirectory(tmp_path)
    run.write_config({"lr": 1})
    write_iterations(run, range(1, 4))
    run.close()
    before = files_of(tmp_path)
    built = RunDirectory(tmp_path)
    built.write_config({"lr": 2})
    built.close()
    assert files_of(tmp_path) == before
    restored = RunDirectory(tmp_path, iteration=3)
    restored.write_config({"lr": 2})
    assert files_of(tmp_path) == before
    write_iterations(restored, range(4, 5))
    restored.close()
    assert json.loads((tmp_path / "config.json").read_text()) == {"lr": 2}
    assert [row["training_iteration"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_a_line_that_a_killed_process_left_half_written_is_repaired(tmp_path):
    run = RunDirectory(tmp_path)
    write_iterations(run, range(1, 4))
    run.close()
    for name in ("metrics.jsonl", "minibatches.jsonl"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-2])
    # A reader of the run sees whole rows only.
    assert [row["training_iteration"] for row in read_metrics(tmp_path)] == [1, 2]
    again = RunDirectory(tmp_path, iteration=3)
    again.write_minibatches(4, [{"minibatch": 0}])
    again.write_metrics(4, {"a": 1.0})
    again.close()
    assert [row["training_iteration"] for row in read_metrics(tmp_path)] == [1, 2, 4]
    steps = [row["training_iteration"] for row in read_minibatches(tmp_path)]
    assert steps == [1, 1, 2, 2, 3, 4]


@pytest.mark.parametrize("cut", range(1, 45))
def test_a_metrics_file_cut_anywhere_in_its_last_line_goes_on_with_whole_rows(tmp_path, cut):
    lines = [json.dumps({"training_iteration": n, "loss": n / 3}).encode() + b"\n" for n in (1, 2)]
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines)[:-cut])
    run = RunDirectory(tmp_path, iteration=2)
    run.write_metrics(3, {"loss": 1.0})
    run.close()
    # Only the line break missing: the row is complete.
    expected = [1, 2, 3] if cut == 1 else [1, 3]
    assert [row["training_iteration"] for row in read_metrics(tmp_path)] == expected


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"training_iteration": 1}\nnonsense\n{"training_iteration": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: not a row .*'nonsense"):
        read_metrics(tmp_path)
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2"):
        RunDirectory(tmp_path, iteration=3).write_metrics(4, {})
    assert "nonsense" in path.read_text()


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/no/run"])
def test_a_run_directory_that_cannot_be_written_is_named(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"`run_dir` .* cannot be written") as caught:
        usable_directory(tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)


def test_a_usable_run_directory_is_made_absolute_and_left_empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert usable_directory("a run/of mine") == tmp_path / "a run" / "of mine"
    assert not list((tmp_path / "a run" / "of mine").iterdir())
