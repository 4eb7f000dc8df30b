"""Rows with values and combinations that come about by accident."""

import logging
import uuid

import numpy as np
import pandas as pd
import pytest

from prefix_rft_rllib.envs.rows import problem_rows
from prefix_rft_rllib.envs.rows.plain_values import NotPlainError, leaves, plain
from tests.envs.problem_data import error_of, load
from tests.envs.row_makers import ASSISTANT, OPENR1, USER

MAKERS = "tests.envs.row_makers"
ROW = {"prompt": "What is 2 + 3 ?", "answer": "5"}


@pytest.fixture
def load_rows(config, monkeypatch):
    """Loads rows as they are, whatever their values; True in front asks for the error."""

    def loaded(*rows, **changes):
        monkeypatch.setattr(f"{MAKERS}.no_rows", lambda: rows)
        # Settings that no other rows have been cached for.
        unique = {"extra_fields": [uuid.uuid4().hex, "note"]}
        return load({**config, **unique}, data=f"{MAKERS}:no_rows", **changes)

    return loaded


@pytest.mark.parametrize("column", ["demonstration", "demonstrations", "id", "answer", "domain"])
def test_a_field_that_is_no_plain_data_is_an_error_and_not_left_out(load_rows, column):
    with pytest.raises(ValueError, match=rf":1: field '{column}' cannot be read: builtins.set is"):
        load_rows({**ROW, column: {"so \\boxed{5}"}})


def test_missing_values_of_tables_are_null_and_uuids_are_text(load_rows):
    rows = pd.DataFrame([{**ROW, "answer": 5}, {"prompt": "7 ?", "answer": None}])
    filters = ["no_parseable_answer"]
    for records in (rows.to_dict("records"), rows.convert_dtypes().to_dict("records")):
        records[0]["answer"] = "5"
        records[0] |= {"id": uuid.UUID(int=3), "demonstration": pd.NA}
        problems = load_rows(*records, filters=filters)
        assert [p.problem_id for p in problems.train] == ["00000000-0000-0000-0000-000000000003"]
        assert problems.counts["dropped_no_parseable_answer"] == 1
        with pytest.raises(ValueError, match=r":2: the problem has no answer"):
            load_rows(*records)


def test_a_column_nested_too_deep_is_left_out_and_counted(load_rows):
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    ring: list = []
    ring.append(ring)
    for value in (deep, ring):
        with pytest.raises(NotPlainError, match="list nested too deep"):
            plain(value)
        assert load_rows({**ROW, "note": value}).counts["column_left_out:note"] == 1


def test_every_text_of_a_message_must_be_one(load_rows):
    for key, path in (("name", "name"), ("role", "role"), ("content", "content")):
        messages = [USER, {**USER, key: "a\ud800"}, USER]
        with pytest.raises(ValueError, match=rf"field 'prompt\.1\.{path}' has half of a surrogate"):
            load_rows({"prompt": messages, "answer": "5"})
    calls = [{"function": {"name": "add", "arguments": "\udfff"}}]
    asked = [USER, {"role": "assistant", "tool_calls": calls}, {"role": "tool", "content": "5"}]
    with pytest.raises(ValueError, match=r"'prompt\.1\.tool_calls\.0\.function\.arguments' has"):
        load_rows({"prompt": asked, "answer": "5"})


def test_a_message_that_calls_tools_needs_no_content(load_rows, chat_bpe):
    calls = [{"function": {"name": "add", "arguments": "{}"}}]
    asked = [USER, {"role": "assistant", "tool_calls": calls}, {"role": "tool", "content": "5"}]
    row = {"prompt": asked, "answer": "5"}
    problem = load_rows(row, tokenizer=chat_bpe, max_prompt_tokens=90).train[0]
    assert [m["content"] for m in problem.messages] == [USER["content"], "", "5"]


def test_a_conversation_beside_a_prompt_must_answer_that_prompt(load_rows):
    row = {**ROW, "completion": None, "messages": [USER, ASSISTANT]}
    assert load_rows(row).train[0].demonstration_texts == (ASSISTANT["content"],)
    with pytest.raises(ValueError, match=r"field 'messages' is a conversation about .*7 \?"):
        load_rows({**row, "messages": [{**USER, "content": "7 ?"}, ASSISTANT]})
    with pytest.raises(ValueError, match="field 'messages' is a conversation about"):
        load_rows({**row, "messages": [ASSISTANT]})


def test_one_list_of_verdicts_is_enough_to_know_the_form(load_rows):
    row = {key: value for key, value in OPENR1.items() if key != "correctness_math_verify"}
    problems = load_rows({**row, "correctness_llama": np.array([False, True])})
    assert problems.train[0].demonstration_texts == (OPENR1["generations"][1],)


def test_a_function_that_goes_on_is_said(load_rows, monkeypatch, caplog):
    monkeypatch.setattr(problem_rows, "_ROWS_PER_MESSAGE", 2)
    with caplog.at_level(logging.WARNING):
        load_rows(*({"prompt": f"{number} ?", "answer": "5"} for number in range(3)))
    assert [r.args[1] for r in caplog.records if "goes on" in r.msg] == [2]


def test_text_that_is_no_csv_is_told_what_csv_is(config, tmp_path):
    for name, text in (
        ("semicolons.csv", '"prompt";"answer"\n"2 ?";"2"\n'),
        ("old_line_ends.csv", "prompt,answer\r2 ?,2\r"),
    ):
        path = tmp_path / name
        path.write_bytes(text.encode())
        message = error_of(config, data=str(path))
        assert f"{name}:1: the line is not valid CSV" in message
        assert "Columns are separated by commas, lines end with a line feed" in message


def test_leaves_are_named_by_the_way_to_them():
    value = {"a": [1, {"b": None}], "c": {}, "d": "x"}
    assert list(leaves(value)) == [("a.0", 1), ("a.1.b", None), ("d", "x")]
    assert list(leaves(3)) == [("", 3)]
