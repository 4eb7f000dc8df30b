"""Functions that give rows, settings of one source, ids across sources, other columns."""

import datetime
import decimal
import pickle

import numpy as np
import pytest

from prefix_rft_rllib.envs.rows.plain_values import Extra, NotPlainError, plain
from tests.envs.problem_data import ROWS, error_of, load

MAKERS = "tests.envs.row_makers"


def test_a_function_gives_rows_with_its_arguments(config):
    data = f"{MAKERS}:rows"
    problems = load(config, data=data, data_config={"num_rows": 2, "seed": 4})
    assert [(p.prompt, p.source) for p in problems.train] == [
        ("What is 4 + 3 ?", f"{data}:1"),
        ("What is 5 + 3 ?", f"{data}:2"),
    ]
    assert problems.train[1].extra == {"summands": [5, 3]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rows", "does not fit the function 'tests.envs.row_makers:rows'"),
        ("failing_rows", "failed after 2 rows (KeyError: 'no more')"),
        ("texts_for_rows", "gives str 'What is 2 + 3 ?' as row 2. Every row must be a dict"),
        ("no_rows", "gives no rows"),
        ("nothing", "failed after 0 rows (TypeError: 'NoneType' object is not iterable)"),
        ("no_such_name", "cannot be imported"),
        ("NOT_A_FUNCTION", "is of the type int, not a function"),
    ],
)
def test_a_function_that_gives_no_rows_is_named(config, name, expected):
    data_config = {"colour": 1} if name == "rows" else {}
    message = error_of(config, data=f"{MAKERS}:{name}", data_config=data_config)
    assert f"'{MAKERS}:{name}'" in message
    assert expected in message


def test_a_module_that_is_not_there_is_an_error_and_no_data_set(config):
    assert "No module named 'no_such'" in error_of(config, data="no_such.module:rows")


def test_a_source_has_its_own_fields_filters_and_prompts(config, write_rows, chat_bpe):
    plain_rows = write_rows([{"q": "2 ?", "gold": "2"}, {"q": "3 ?", "gold": None}], "a.jsonl")
    held_out = write_rows([{"id": "h", "prompt": "4 ?", "answer": "4"}], "h.jsonl")
    own = {
        "data": plain_rows,
        "fields": {"prompt": "q", "answer": "gold"},
        "filters": ["no_parseable_answer"],
        "prompt_template": "{prompt} Box it .",
        "system_prompt": None,
    }
    problems = load(
        config,
        data=[config["data"], own],
        held_out_data={"new": {"data": held_out, "chat_template": False}},
        tokenizer=chat_bpe,
        system_prompt="Hm .",
        max_prompt_tokens=90,
    )
    texts = [problems.tokenizer.decode(p.prompt_ids) for p in problems.problems]
    assert texts[0] == "<|turn|>system: Hm .\n<|turn|>user: What is 2 + 3 ?\n<|turn|>assistant: "
    assert texts[3:] == ["<|turn|>user: 2 ? Box it .\n<|turn|>assistant: ", "Hm .\n\n4 ?"]
    assert problems.counts["dropped_no_parseable_answer"] == 1
    assert [p.source_number for p in problems.problems] == [0, 0, 0, 1, 2]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"filters": ["short"]}, "The data source 'a.jsonl' by itself: Unknown filter 'short'"),
        (
            {"fields": "ver"},
            "The data source 'a.jsonl' by itself: env_config['fields'] must be one of 'verl'",
        ),
        ({"prompt_template": "Solve"}, "does not contain {prompt}"),
        ({"verifier": "math"}, "has an entry with the keys ['data', 'verifier']. Allowed"),
        ({"extra_fields": "all"}, "must be a list of column names"),
    ],
)
def test_a_wrong_setting_of_a_source_names_the_source(config, own, expected):
    assert expected in error_of(config, data=[{"data": "a.jsonl", **own}])


def test_an_id_of_two_files_is_two_ids_unless_the_problem_is_the_same(config, write_rows, tmp_path):
    row = {"id": 7, "prompt": "2 ?", "answer": "2", "demonstration": "\\boxed{2}"}
    other = {"id": 7, "prompt": "3 ?", "answer": "3"}
    (tmp_path / "b").mkdir()
    first = write_rows([row, {"id": "a.jsonl/7", "prompt": "9 ?", "answer": "9"}], "a.jsonl")
    second = write_rows([other, {**other, "demonstration": "= \\boxed{3}"}], "c.jsonl")
    same = write_rows([{**row, "demonstration": "so \\boxed{2}"}], "d.jsonl")
    third = write_rows([{**row, "prompt": "4 ?"}], "b/a.jsonl")
    problems = load(config, data=[first, second, same, third])
    ids = ["7", "a.jsonl/7", "c.jsonl/7", f"{third}/7"]
    assert [p.problem_id for p in problems.train] == ids
    assert problems.by_id("7").demonstration_texts == ("\\boxed{2}", "so \\boxed{2}")
    assert problems.by_id("c.jsonl/7").demonstration_texts == ("= \\boxed{3}",)
    assert problems.counts["ids_with_source_name"] == 2
    assert [p.problem_id for p in load(config, data=second).train] == ["7"]
    conflict = write_rows([row, {**row, "prompt": "5 ?"}], "e.jsonl")
    assert "e.jsonl:2: field 'prompt' is '5 ?'" in error_of(config, data=conflict)


def test_merged_rows_with_other_columns_are_counted(config, write_rows):
    rows = [{**ROWS[0], "by": "human"}, {**ROWS[0], "demonstration": "\\boxed{5}", "by": "model"}]
    problems = load(config, data=write_rows(rows, "m.jsonl"))
    assert problems.train[0].extra == {"by": "human"}
    assert problems.counts["merged_rows_with_other_columns"] == 1


def test_a_column_that_is_no_plain_data_is_left_out_and_counted(config, monkeypatch):
    rows = [{"prompt": "2 ?", "answer": "2", "image": object(), "n": np.int64(3)}]
    monkeypatch.setattr(f"{MAKERS}.no_rows", lambda: rows)
    problems = load(config, data=f"{MAKERS}:no_rows")
    assert problems.train[0].extra == {"n": 3}
    assert problems.counts["column_left_out:image"] == 1
    rows[0]["prompt"] = object()
    message = error_of({**config, "max_prompt_tokens": 23}, data=f"{MAKERS}:no_rows")
    assert "field 'prompt' cannot be read: builtins.object is no plain data" in message


def test_plain_data_is_what_json_has_and_bytes():
    moment = datetime.datetime(2026, 1, 2, 3)
    assert plain(
        {1: (np.float32(0.5), np.array([1, 2])), "d": moment, "x": decimal.Decimal("1.50")}
    ) == {"1": [0.5, [1, 2]], "d": "2026-01-02T03:00:00", "x": "1.50"}
    assert plain(bytearray(b"a")) == b"a"
    assert type(plain(np.str_("a"))) is str
    with pytest.raises(NotPlainError, match=r"builtins\.object"):
        plain({"a": [object()]})


def test_extra_columns_cannot_be_changed_and_travel():
    values = {"numbers": [1, 2], "long": 10**6000, "half": "\ud83d", "nan": None}
    extra = Extra(values)
    extra["numbers"].remove(1)
    assert extra["numbers"] == [1, 2]
    assert (dict(extra), len(extra), "long" in extra) == (values, 4, True)
    with pytest.raises(TypeError):
        extra["numbers"] = []
    assert pickle.loads(pickle.dumps(extra)) == extra
    assert (len(Extra()), Extra() == {}, Extra().packed) == (0, True, b"")


def test_a_whole_number_that_python_does_not_write_is_an_error(config, monkeypatch):
    rows = [{"prompt": "2 ?", "answer": 10**5000}]
    monkeypatch.setattr(f"{MAKERS}.no_rows", lambda: rows)
    message = error_of({**config, "max_prompt_tokens": 22}, data=f"{MAKERS}:no_rows")
    assert f"{MAKERS}:no_rows:1: field 'answer' is a whole number that is too long" in message
