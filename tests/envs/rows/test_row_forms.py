"""The forms of public libraries: conversations, demonstrations, other columns."""

import json
import logging

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest

from tests.envs.problem_data import error_of, load
from tests.envs.row_makers import ASSISTANT, LUFFY, OPENR1, SYSTEM, TRL, USER, VERL

TEXT = ASSISTANT["content"]
ASKED = "<|turn|>user: What is 2 + 3 ?\n<|turn|>assistant: "
WITH_SYSTEM = f"<|turn|>system: Be brief .\n{ASKED}"
FORMS = {
    "verl": (VERL, ASKED, ()),
    "luffy": (LUFFY, WITH_SYSTEM, (TEXT,)),
    "openr1": (OPENR1, ASKED, (TEXT,)),
    "trl": (TRL, ASKED, (TEXT,)),
}


@pytest.fixture
def one(config, chat_bpe, write_rows):
    """Loads one row and gives its problem, the prompt as the model reads it, and the set."""

    def load_one(row, **changes):
        data = row if isinstance(row, str) else write_rows([row], "one.jsonl")
        settings = {"tokenizer": chat_bpe, "max_prompt_tokens": 200, "max_response_tokens": 90}
        problems = load(config, data=data, **{**settings, **changes})
        (problem,) = problems.train
        return problem, problems.tokenizer.decode(problem.prompt_ids), problems

    return load_one


@pytest.fixture
def refused(config, chat_bpe, write_rows):
    def message(row, **changes):
        settings = {"tokenizer": chat_bpe, "max_prompt_tokens": 200, "max_response_tokens": 90}
        return error_of(config, data=write_rows([row], "bad.jsonl"), **{**settings, **changes})

    return message


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_recognised_said_and_read_as_its_preset_reads_it(one, caplog, name):
    row, prompt, demonstrations = FORMS[name]
    with caplog.at_level(logging.INFO):
        problem, text, problems = one(row)
    assert (text, problem.answer, problem.demonstration_texts) == (prompt, "5", demonstrations)
    assert problem.prompt == "What is 2 + 3 ?"
    assert f"1 rows read in the form '{name}': prompt from" in caplog.text
    assert problems.counts[f"rows_in_form:{name}"] == 1
    again, same_text, _ = one(row, fields=name)
    assert (again, same_text) == (problem, text)


@pytest.mark.parametrize("name", FORMS)
def test_tables_hold_the_forms_as_columns_arrays_and_encoded_texts(one, tmp_path, name):
    row, prompt, demonstrations = FORMS[name]
    encoded = {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()}
    python = {k: repr(v) if isinstance(v, list | dict) else v for k, v in row.items()}
    arrays = {k: np.array(v, dtype=object) if isinstance(v, list) else v for k, v in row.items()}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "nested.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([encoded]), tmp_path / "flat.parquet")
    pandas.DataFrame([arrays]).to_parquet(tmp_path / "arrays.parquet")
    pandas.DataFrame([encoded]).to_csv(tmp_path / "table.csv", index=False)
    pandas.DataFrame([python]).to_csv(tmp_path / "python.csv", index=False)
    for file in sorted([*tmp_path.glob("*.parquet"), *tmp_path.glob("*.csv")]):
        problem, text, _ = one(str(file))
        assert (text, problem.demonstration_texts) == (prompt, demonstrations), file.name
        assert (problem.answer, problem.source) == ("5", f"{file}:{2 if 'csv' in file.name else 1}")


def test_sequences_of_the_datasets_library_are_conversations(one):
    def zipped(messages):
        return {key: [message[key] for message in messages] for key in ("content", "role")}

    row = {**LUFFY, "prompt": zipped(LUFFY["prompt"]), "target": zipped(LUFFY["target"])}
    problem, text, problems = one(row)
    assert (text, problem.demonstration_texts) == (WITH_SYSTEM, (TEXT,))
    assert problems.counts["rows_in_form:luffy"] == 1
    trl = {"prompt": zipped([USER]), "answer": "5"}
    assert one(trl)[2].counts["rows_in_form:trl"] == 1
    assert one({**row, "target": zipped([])})[0].demonstration_texts == ()


def test_other_columns_reach_the_problem_and_fields_do_not_appear_twice(one):
    assert one(VERL)[0].extra == {name: VERL[name] for name in VERL if name != "prompt"}
    extra = one(OPENR1)[0].extra
    assert extra == {"solution": OPENR1["solution"], "correctness_math_verify": [True, False]} | {
        "correctness_llama": None
    }
    assert one(TRL)[0].extra == {}
    assert one(VERL, extra_fields=["ability"])[0].extra == {"ability": "math"}
    assert one(VERL, extra_fields=[])[0].extra == {}


def test_a_row_s_own_system_message_replaces_the_configured_one(one):
    assert one(LUFFY, system_prompt="Be long .")[1] == WITH_SYSTEM
    assert one(VERL, system_prompt="Be brief .")[1] == WITH_SYSTEM
    assert one(LUFFY, system_prompt="")[1] == WITH_SYSTEM


def test_a_prompt_template_goes_around_the_last_user_message(one):
    turns = [USER, ASSISTANT, {"role": "user", "content": "and {x} 4 ?"}]
    row = {"prompt": turns, "answer": "9"}
    asked = f"<|turn|>user: What is 2 + 3 ?\n<|turn|>assistant: {TEXT}\n<|turn|>user: "
    problem, text, _ = one(row)
    assert text == f"{asked}and {{x}} 4 ?\n<|turn|>assistant: "
    assert (problem.prompt, problem.demonstration_texts) == ("and {x} 4 ?", ())
    text = one(row, prompt_template="{prompt} Box it .")[1]
    assert text == f"{asked}and {{x}} 4 ? Box it .\n<|turn|>assistant: "


def test_a_prompt_that_ends_in_the_assistant_s_turn_is_gone_on_with(one):
    begun = {"role": "assistant", "content": "Let me see"}
    assert one({"prompt": [USER, begun], "answer": "5"})[1] == f"{ASKED}Let me see"


def test_a_whole_conversation_ends_with_the_demonstration(one):
    problem, text, _ = one({"messages": [SYSTEM, USER, ASSISTANT], "answer": "5"})
    assert (text, problem.demonstration_texts) == (WITH_SYSTEM, (TEXT,))
    problem, text, _ = one({"messages": [SYSTEM, USER], "answer": "5"})
    assert (text, problem.demonstration_texts) == (WITH_SYSTEM, ())
    both = {"prompt": [USER], "messages": [USER, ASSISTANT], "answer": "5"}
    assert one(both)[0].demonstration_texts == (TEXT,)
    row = {"chat": [USER, ASSISTANT], "answer": "5"}
    assert one(row, fields={"messages": "chat"})[0].demonstration_texts == (TEXT,)


def test_contents_may_come_in_parts_of_text_only(one, refused):
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 3 ?"}]
    row = {"prompt": [{"role": "user", "content": parts, "name": None}], "answer": "5"}
    assert one(row)[1] == ASKED
    image = {"type": "image", "image": "x.png"}
    row["prompt"][0]["content"] = [*parts, image]
    message = refused(row)
    assert "bad.jsonl:1: field 'prompt' message 0 has a content with parts" in message
    assert "'image'" in message


@pytest.mark.parametrize(
    ("value", "texts", "num_blank"),
    [
        ([], (), 0),
        (None, (), 0),
        ("", (), 1),
        (" \n", (), 1),
        ([None], (), 1),
        ([None, TEXT, ""], (TEXT,), 2),
        ([{"role": "assistant", "content": None}], (), 1),
        ([{"role": "assistant", "content": " "}, None], (), 1),
        ([[ASSISTANT], [], None, [{"role": "assistant", "content": "b"}]], (TEXT, "b"), 2),
        ([ASSISTANT], (TEXT,), 0),
        (ASSISTANT, (TEXT,), 0),
        (json.dumps([TEXT, None]), (TEXT,), 1),
        (json.dumps([ASSISTANT]), (TEXT,), 0),
        ("[1, 2] are the roots", ("[1, 2] are the roots",), 0),
        ("[1, 2]", ("[1, 2]",), 0),
    ],
)
def test_nothing_for_a_demonstration_is_a_problem_without_one(one, value, texts, num_blank):
    problem, _, problems = one({**VERL, "target": value})
    assert problem.demonstration_texts == texts
    assert problems.counts.get("demonstrations_blank", 0) == num_blank


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"target": [USER]}, "field 'target' has messages of the roles ['user']"),
        ({"target": [ASSISTANT, ASSISTANT]}, "several demonstrations are a list of lists"),
        ({"target": [7]}, "field 'target' must be null, text, an assistant message"),
        (
            {"target": [{**ASSISTANT, "reasoning_content": "hm"}]},
            "'reasoning_content' beside its content, which would be lost",
        ),
        ({"prompt": [SYSTEM]}, "field 'prompt' has no user message"),
        ({"prompt": [USER, SYSTEM]}, "ends with a message of the role 'system'"),
        ({"prompt": [{"role": 3, "content": "x"}]}, "message 0 has the role 3"),
        ({"prompt": [{"role": "user", "content": " "}]}, "has no user message with a text"),
        ({"prompt": [{"from": "human", "value": "x"}]}, "field 'prompt' must be text, got list"),
        ({"prompt": "[{'role': 'user', 'content': x}]"}, "looks like a list of messages"),
        (
            {"prompt": [{"role": "user", "content": "a\ud800"}]},
            "field 'prompt.0.content' has half of a surrogate pair, '\\ud800', at character 1",
        ),
        ({"reward_model": {"ground_truth": ["5", "6"]}}, "must be text, got list ['5', '6']"),
        ({"reward_model": {"style": "rule"}}, "no answer"),
    ],
)
def test_a_bad_conversation_names_file_line_and_field(refused, change, expected):
    message = refused({**VERL, **change}, fields="luffy")
    assert "bad.jsonl:1: " in message
    assert expected in message


def test_a_list_with_one_answer_is_an_answer_as_verl_has_it(one):
    assert one({**VERL, "reward_model": {"ground_truth": ["5"]}})[0].answer == "5"


def test_generations_that_no_verdict_calls_right_are_left_out_and_counted(one, refused):
    row = {**OPENR1, "generations": ["a", "b", "c"], "correctness_llama": [False, False, True]}
    row["correctness_math_verify"] = [True, False, None]
    problem, _, problems = one(row)
    assert problem.demonstration_texts == ("a", "c")
    assert problems.counts["demonstrations_marked_wrong"] == 1
    none = {**row, "correctness_math_verify": None, "correctness_llama": None}
    assert one(none)[0].demonstration_texts == ("a", "b", "c")
    message = refused({**row, "correctness_llama": [True]})
    assert "field 'correctness_llama' must be a list of 3 times true or false" in message


def test_a_conversation_needs_a_chat_template_unless_it_is_one_question(one, refused, bpe):
    assert one(LUFFY, tokenizer=bpe)[1] == "Be brief .\n\nWhat is 2 + 3 ?"
    turns = {"prompt": [USER, ASSISTANT, USER], "answer": "5"}
    message = refused(turns, tokenizer=bpe)
    assert "bad.jsonl:1: field 'prompt': the conversation has messages of the roles" in message
    assert "no chat template to write them with" in message
    assert "no chat template" in refused(turns, chat_template=False)


@pytest.mark.parametrize("fields", ["ver", "plain", 3])
def test_an_unknown_preset_lists_the_known_ones(config, fields):
    assert "must be one of 'verl', 'luffy'" in error_of(config, fields=fields)
