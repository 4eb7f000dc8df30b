"""A rollout record comes back from its file as it was written."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.runs.rollout_records import RolloutRecord, json_value
from prefix_rft_rllib.runs.run_directory import RunDirectory, read_rollouts
from tests.run_records import (
    CharacterTokenizer,
    as_dict,
    files_of,
    record,
)
from tests.small_configs import HOSTILE_TEXT


def test_rollouts_come_back_as_they_were_written(tmp_path):
    run = RunDirectory(tmp_path)
    plain = record(member=1, prefix_fraction=0.0, num_prefix_tokens=0, region=["response"] * 5)
    bare = record(entropy=None, old_logp=None, engine_logp=None, weight=None, kept=None)
    demonstration = record(
        member=None, verdict=None, finish_reason=None, weights_seq_no=None, window_low=None,
        region=["demonstration"] * 5,
    )  # fmt: skip
    records = [record(), plain, bare, demonstration]
    run.write_rollouts(12, records)
    run.write_rollouts(13, [])
    run.close()
    path = tmp_path / "rollouts" / "iteration_000012.jsonl.gz"
    assert [as_dict(r) for r in read_rollouts(path)] == [as_dict(r) for r in records]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_json_of_a_rollout_has_runs_of_regions_and_shortest_float32_numbers():
    data = json.loads(record().to_json())
    assert data["region"] == [["prefix", 2], ["response", 3]]
    # float32(0.1) is 0.100000001490116...; 0.1 is the shortest decimal that rounds to it.
    assert data["entropy"] == [0.1, 0.33333334, 2.0, 0.0, 1e-30]
    assert data["old_logp"][-1] == "-Infinity"
    assert data["engine_logp"] == [None, None, -0.5, -0.25, -0.125]
    # Numbers per rollout are float64 and keep all digits.
    assert data["prefix_fraction"] == 0.30000000000000004
    assert "prompt_text" not in data


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), max_size=30), st.text(max_size=20))
def test_every_float32_and_every_text_survives_the_rollouts_file(values, text):
    ids = [ord(character) for character in text]
    rollout = record(
        problem_id=text, response_ids=[0] * len(values), region=["response"] * len(values),
        num_prefix_tokens=0, entropy=values, weight=None, kept=None, old_logp=None,
        engine_logp=None, prompt_ids=ids,
    ).with_texts(CharacterTokenizer())  # fmt: skip
    again = RolloutRecord.from_json(rollout.to_json())
    assert again == rollout
    assert np.array(again.entropy, np.float32).tobytes() == np.array(values, np.float32).tobytes()
    assert again.prompt_text == text


def test_details_of_a_verdict_come_back_whatever_text_they_hold(tmp_path):
    details = {"got": HOSTILE_TEXT, "num_passed": 2, "share": 0.5, "is_late": True}
    run = RunDirectory(tmp_path)
    run.write_rollouts(1, [record(verdict_details=details), record()])
    run.close()
    with_details, without = read_rollouts(tmp_path / "rollouts" / "iteration_000001.jsonl.gz")
    assert with_details.verdict_details == details
    assert without.verdict_details is None


def test_a_file_from_before_there_were_details_is_read():
    line = record().to_json()
    assert "verdict_details" not in line
    assert RolloutRecord.from_json(line).verdict_details is None


def test_equal_rollouts_give_equal_files(tmp_path):
    for name in ("a", "b"):
        run = RunDirectory(tmp_path / name)
        run.write_rollouts(1, [record()])
        run.close()
    written = files_of(tmp_path / "a")
    assert written == files_of(tmp_path / "b")
    data = written["rollouts/iteration_000001.jsonl.gz"]
    # Bytes 4 to 7 of a gzip file are the time of writing, in seconds.
    assert data[4:8] == bytes(4)


def test_a_record_with_a_wrong_number_of_values_per_token_is_refused():
    with pytest.raises(AssertionError, match="entropy has 4 entries for 5 response tokens"):
        record(entropy=[0.0] * 4)


def test_texts_of_a_rollout_are_split_at_the_end_of_its_prefix():
    texts = record().with_texts(CharacterTokenizer())
    assert (texts.prompt_text, texts.prefix_text, texts.sampled_text) == ("Hi", "ab", "cde")
    whole = record(region=["demonstration"] * 5).with_texts(CharacterTokenizer())
    assert (whole.prefix_text, whole.sampled_text) == ("abcde", "")


def test_plain_data_passes_through_unchanged():
    data = {"a": [1, 2.5, "x", True, None], "b": {"c": []}}
    assert json_value(data) == data
