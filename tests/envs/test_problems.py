import gzip
import hashlib
import json
import logging
import random

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from prefix_rft_rllib.envs.grading import Grader
from prefix_rft_rllib.envs.problems import load_problem_set
from prefix_rft_rllib.envs.settings import EnvSettings
from prefix_rft_rllib.envs.verifiers.verdict import Verdict
from tests.envs.conftest import ROWS, SAME_BOX
from tests.envs.small_tokenizers import END, save_byte_level_bpe


def load(config, **changes):
    return load_problem_set({**config, **changes})


def error_of(config, **changes) -> str:
    with pytest.raises(ValueError) as caught:
        load(config, **changes)
    return str(caught.value)


def texts(problem_set, rows):
    return [problem_set.tokenizer.decode(ids) for ids in rows]


# --- what a problem is made of


def test_problems_keep_file_order_and_name_their_lines(config):
    problems = load(config)
    assert [p.problem_id for p in problems.train] == ["a", "b", "c"]
    assert [p.source for p in problems.train] == [f"{config['data']}:{n}" for n in (1, 2, 3)]
    assert {p.domain for p in problems.train} == {"math"}
    assert problems.by_id("b").answer == "12"
    assert problems.held_out == {}


def test_demonstrations_end_with_exactly_one_end_token(config, write_rows):
    rows = [
        {**ROWS[0], "demonstration": "2 \\boxed{5}"},
        {**ROWS[1], "demonstration": f"3 \\boxed{{12}}{END}"},
    ]
    problems = load(config, data=write_rows(rows, "ends.jsonl"))
    eos = problems.tokenizer.eos_token_id
    for problem, text in zip(problems.train, ["2 \\boxed{5}", "3 \\boxed{12}"], strict=True):
        (demonstration,) = problem.demonstrations
        assert demonstration[-1] == eos
        assert demonstration.count(eos) == 1
        assert texts(problems, [demonstration[:-1]]) == [text]


def test_an_end_token_inside_a_demonstration_is_an_error(config, write_rows):
    data = write_rows([{**ROWS[0], "demonstration": f"2 {END} 3"}], "inside.jsonl")
    message = error_of(config, data=data)
    assert f"{data}:1" in message
    assert "end token" in message


def test_plain_prompts_have_no_template(config):
    problems = load(config)
    assert texts(problems, [problems.by_id("a").prompt_ids]) == ["What is 2 + 3 ?"]


def test_the_chat_template_is_used_when_there_is_one(config, chat_bpe):
    problems = load(config, tokenizer=chat_bpe, system_prompt="Box it.", max_prompt_tokens=90)
    assert texts(problems, [problems.by_id("a").prompt_ids]) == [
        "<|turn|>system: Box it.\n<|turn|>user: What is 2 + 3 ?\n<|turn|>assistant: "
    ]
    turn = problems.tokenizer.convert_tokens_to_ids("<|turn|>")
    assert problems.by_id("a").prompt_ids.count(turn) == 3
    plain = load(config, tokenizer=chat_bpe, chat_template=False)
    assert texts(plain, [plain.by_id("a").prompt_ids]) == ["What is 2 + 3 ?"]


def test_prompt_template_and_system_prompt_without_chat_template(config):
    template = "Q: {prompt}\nPut it into \\boxed{}.\nA:"
    problems = load(config, prompt_template=template, system_prompt="Think.", max_prompt_tokens=90)
    assert texts(problems, [problems.by_id("a").prompt_ids]) == [
        "Think.\n\nQ: What is 2 + 3 ?\nPut it into \\boxed{}.\nA:"
    ]


def test_a_begin_token_is_kept_and_an_appended_end_token_is_not(config, unigram):
    problems = load(config, tokenizer=unigram)
    tokenizer = problems.tokenizer
    prompt_ids = problems.by_id("a").prompt_ids
    assert tokenizer("What is 2 + 3 ?")["input_ids"] == [*prompt_ids, tokenizer.eos_token_id]
    assert prompt_ids[0] == tokenizer.bos_token_id
    (demonstration,) = problems.by_id("a").demonstrations
    assert tokenizer.bos_token_id not in demonstration


def test_a_missing_chat_template_is_an_error_only_if_it_was_asked_for(config):
    assert "has no chat template" in error_of(config, chat_template=True)


# --- reading rows


def test_gzip_line_separators_and_carriage_returns_are_read(config, tmp_path):
    line = json.dumps({**ROWS[0], "prompt": "2\u2028 + 3\x85 ?"}, ensure_ascii=False)
    path = tmp_path / "odd.jsonl.gz"
    path.write_bytes(gzip.compress(f"\ufeff{line}\r\n\n{json.dumps(ROWS[1])}".encode()))
    problems = load(config, data=str(path))
    assert [p.prompt for p in problems.train] == ["2\u2028 + 3\x85 ?", "What is 3 + 9 ?"]
    assert problems.train[1].source == f"{path}:3"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"prompt": "x", ', "not valid JSON"),
        ('["x"]', "must be a JSON object, got list"),
        ('{"answer": "1"}', "no prompt: field 'question / problem / prompt'"),
        ('{"prompt": "  ", "answer": "1"}', "no prompt"),
        ('{"prompt": 3, "answer": "1"}', "field 'prompt' must be text, got int"),
        ('{"prompt": "x"}', "no answer: field 'answer / solution'"),
        ('{"prompt": "x", "answer": null}', "no answer"),
        ('{"prompt": "x", "answer": 1.5}', "field 'answer' is the float 1.5. Write it as text"),
        ('{"prompt": "x", "answer": true}', "field 'answer' is the bool True"),
        ('{"prompt": "x", "answer": NaN}', "field 'answer' is the float nan"),
        ('{"prompt": "x", "solution": ["1"]}', "field 'solution' must be text, got list"),
        ('{"prompt": "x", "answer": "1", "demonstration": 7}', "field 'demonstration' must be"),
        ('{"prompt": "x", "answer": "1", "demonstrations": [""]}', "field 'demonstrations' must"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_bad_row_names_file_line_and_field(config, tmp_path, line, expected):
    path = tmp_path / "bad.jsonl"
    text = json.dumps(ROWS[0]) + "\n" + line + "\n"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    message = error_of(config, data=str(path))
    assert f"{path}:2: " in message
    assert expected in message


def test_whole_numbers_are_accepted_as_answers_and_ids(config, write_rows):
    data = write_rows([{"id": 7, "question": "x", "answer": -12}], "numbers.jsonl")
    (problem,) = load(config, data=data).train
    assert (problem.problem_id, problem.answer) == ("7", "-12")


def test_a_broken_gzip_file_is_named(config, tmp_path):
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}" * 999)[:-10])
    assert f"{path} is not a complete gzip file" in error_of(config, data=str(path))


def test_fields_can_be_renamed_and_reached_with_dots(config, write_rows):
    row = {
        "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "2 ?"}],
        "reward": {"truth": "2"},
        "target": "\\boxed{2}",
    }
    fields = {"prompt": "prompt.1.content", "answer": "reward.truth", "demonstration": "target"}
    (problem,) = load(config, data=write_rows([row], "nested.jsonl"), fields=fields).train
    assert (problem.prompt, problem.answer) == ("2 ?", "2")
    assert problem.demonstration_texts == ("\\boxed{2}",)
    message = error_of(config, fields={"answer": "gold"})
    assert "no field 'gold'" in message
    assert "id, prompt, answer, demonstration" in message
    assert "prompt.1.content" in error_of(config, data=write_rows([{**row, "answer": "1"}]))


def test_parquet_and_saved_datasets_give_the_same_problems_as_jsonl(config, tmp_path):
    rows = [{"question": r["prompt"], "answer": r["answer"], "id": r["id"]} for r in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "p.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    for name in ("p.parquet", "saved"):
        problems = load(config, data=str(tmp_path / name)).train
        assert [(p.problem_id, p.prompt, p.answer) for p in problems] == [
            (r["id"], r["prompt"], r["answer"]) for r in ROWS
        ]
        assert problems[1].source == f"{tmp_path / name}:2"


def test_a_dataset_with_several_splits_asks_for_one(config, tmp_path):
    part = datasets.Dataset.from_list([{"problem": "x", "answer": "1"}])
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(tmp_path / "splits")
    assert "splits train, test" in error_of(config, data=str(tmp_path / "splits"))
    data = {"data": str(tmp_path / "splits"), "data_config": {"split": "test"}}
    assert len(load(config, data=data).train) == 1


def test_an_unreachable_dataset_is_one_clear_error(config, monkeypatch):
    def unreachable(name, **kwargs):
        raise ConnectionError(f"Couldn't reach {name!r} {kwargs}")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    message = error_of(config, data="some/data", data_config={"split": "train"})
    assert "'some/data' is no file here" in message
    assert "ConnectionError" in message
    assert "'split': 'train'" in message


@pytest.mark.parametrize("name", ["missing.jsonl", "/no/such/place", "table.csv"])
def test_a_missing_file_is_never_looked_up_as_a_dataset(config, monkeypatch, name):
    monkeypatch.delattr(datasets, "load_dataset")
    assert name in error_of(config, data=name)


def test_several_sources_are_read_in_order(config, write_rows):
    files = [write_rows([row], f"{row['id']}.jsonl") for row in ROWS]
    problems = load(config, data=[files[2], {"data": files[0]}])
    assert [p.problem_id for p in problems.train] == ["c", "a"]


def test_generated_problems_are_read_like_files(config, chat_bpe):
    data_config = {"num_problems": 5, "min_clauses": 2, "max_clauses": 3, "seed": 1}
    changes = {"tokenizer": chat_bpe, "max_prompt_tokens": 200, "max_response_tokens": 300}
    problems = load(config, data="toy_arithmetic", data_config=data_config, **changes)
    assert len(problems.train) == 5
    assert problems.train[0].source == "toy_arithmetic:1"
    message = error_of(config, data="toy_arithmetic", data_config={"colour": 1})
    assert "'toy_arithmetic'" in message
    assert "colour" in message


# --- merging


def test_rows_of_one_problem_become_one_problem_with_several_demonstrations(config, write_rows):
    first = {"problem_id": "p", "id": "1", "prompt": "2 ?", "answer": "2"}
    rows = [
        {**first, "demonstration": "\\boxed{2}"},
        {**first, "id": "2", "demonstration": "so \\boxed{2}"},
        {**first, "id": "3", "demonstration": "\\boxed{2}"},
        {"id": "other", "prompt": "2 ?", "answer": "2", "demonstration": "= \\boxed{2}"},
        {"id": "third", "prompt": "2 ?", "answer": "3"},
    ]
    data = write_rows(rows, "merge.jsonl")
    problems = load(config, data=data)
    merged, different_answer = problems.train
    assert merged.problem_id == "p"
    assert merged.demonstration_texts == ("\\boxed{2}", "so \\boxed{2}", "= \\boxed{2}")
    assert merged.demonstration_sources == tuple(f"{data}:{n}" for n in (1, 2, 4))
    assert different_answer.problem_id == "third"
    assert problems.counts["merged_rows"] == 3


@pytest.mark.parametrize("field", ["answer", "prompt"])
def test_rows_of_one_problem_must_agree(config, write_rows, field):
    row = {"id": "p", "prompt": "2 ?", "answer": "2"}
    data = write_rows([row, {**row, field: "else"}], "conflict.jsonl")
    message = error_of(config, data=data)
    assert f"{data}:2: field '{field}' is 'else', but {data}:1" in message


def test_ids_from_content_do_not_depend_on_the_order_of_rows(config, write_rows):
    rows = [{"prompt": f"{n} ?", "answer": str(n)} for n in range(5)]
    forward = load(config, data=write_rows(rows, "f.jsonl")).train
    backward = load(config, data=write_rows(rows[::-1], "b.jsonl")).train
    assert [p.problem_id for p in forward] == [p.problem_id for p in backward][::-1]
    assert len({p.problem_id for p in forward}) == 5


# --- splits, filters, counts


def test_the_held_out_split_goes_by_the_hash_of_the_id(config, write_rows):
    rows = [{"id": f"n{n}", "prompt": f"{n} ?", "answer": str(n)} for n in range(400)]
    problems = load(config, data=write_rows(rows, "many.jsonl"), held_out_fraction=0.25)
    # Independent: the share of the first 8 hex digits of SHA-256.
    expected = {
        row["id"]
        for row in rows
        if int(hashlib.sha256(row["id"].encode()).hexdigest()[:8], 16) / 16**8 < 0.25
    }
    assert {p.problem_id for p in problems.held_out["held_out"]} == expected
    assert 70 <= len(expected) <= 130
    assert len(problems.train) == 400 - len(expected)
    random.Random(0).shuffle(rows)
    again = load(config, data=write_rows(rows, "shuffled.jsonl"), held_out_fraction=0.25)
    assert {p.problem_id for p in again.held_out["held_out"]} == expected
    more = load(config, data=write_rows(rows, "shuffled.jsonl"), held_out_fraction=0.5)
    assert expected < {p.problem_id for p in more.held_out["held_out"]}


def test_held_out_files_are_named_and_overlap_is_reported(config, write_rows, caplog):
    new = {"id": "a", "prompt": "67 ?", "answer": "67"}
    held_out = {"new": write_rows([new], "new.jsonl"), "same": {"data": config["data"]}}
    with caplog.at_level(logging.WARNING):
        problems = load(config, held_out_data=held_out)
    assert list(problems.held_out) == ["new", "same"]
    assert [p.problem_id for p in problems.held_out["new"]] == ["new/a"]
    assert problems.by_id("new/a").answer == "67"
    assert problems.counts["also_in_train:same"] == 3
    assert "also_in_train:new" not in problems.counts
    assert "3 of the 3 held-out problems in 'same'" in caplog.text


def test_a_long_prompt_is_an_error_unless_filtered(config, write_rows):
    data = write_rows([*ROWS, {"id": "d", "prompt": "2 " * 60, "answer": "2"}], "long.jsonl")
    message = error_of(config, data=data)
    assert f"{data}:4: field 'prompt' has" in message
    assert "max_prompt_tokens (24)" in message
    problems = load(config, data=data, filters=["prompt_too_long"])
    assert problems.counts["dropped_prompt_too_long"] == 1
    assert [p.problem_id for p in problems.train] == ["a", "b", "c"]


def test_a_missing_answer_is_an_error_unless_filtered(config, write_rows):
    data = write_rows([*ROWS, {"id": "d", "prompt": "2 ?", "answer": None}], "unknown.jsonl")
    assert f"{data}:4: the problem has no answer" in error_of(config, data=data)
    problems = load(config, data=data, filters=["no_parseable_answer"])
    assert problems.counts["dropped_no_parseable_answer"] == 1
    assert len(problems.train) == 3


def test_unreadable_answers_can_be_filtered_by_the_math_verifier(config, write_rows):
    data = write_rows([*ROWS, {"id": "d", "prompt": "2 ?", "answer": "..."}], "dots.jsonl")
    filters = ["no_parseable_answer"]
    problems = load(config, data=data, filters=filters, verifier="math")
    assert [p.problem_id for p in problems.train] == ["a", "b", "c"]
    assert problems.counts["dropped_no_parseable_answer"] == 1


def test_problems_without_demonstration_can_be_filtered_from_training_only(config, write_rows):
    held_out = {"test": write_rows([{"id": "t", "prompt": "89 ?", "answer": "89"}], "t.jsonl")}
    problems = load(config, filters=["no_demonstration"], held_out_data=held_out)
    assert [p.problem_id for p in problems.train] == ["a", "c"]
    assert [p.problem_id for p in problems.held_out["test"]] == ["t"]
    assert problems.counts["dropped_no_demonstration"] == 1


def test_a_demonstration_over_budget_is_set_aside_and_its_problem_stays(config, write_rows):
    row = {**ROWS[2], "demonstrations": ["34 = \\boxed{34}", "34 " * 60 + "\\boxed{34}"]}
    problems = load(config, data=write_rows([row], "longer.jsonl"))
    (problem,) = problems.train
    assert problem.demonstration_texts == ("34 = \\boxed{34}",)
    assert problem.num_long_demonstrations == 1
    assert problems.counts["demonstrations_set_aside"] == 1
    exact = len(problem.demonstrations[0])
    assert len(load(config, max_response_tokens=exact).by_id("c").demonstrations) >= 1
    assert load(config, max_response_tokens=2).counts["demonstrations"] == 0


def test_no_problem_left_is_an_error_with_the_counts(config, write_rows):
    (empty, only_b) = (write_rows([], "empty.jsonl"), write_rows([ROWS[1]], "b.jsonl"))
    assert "0 rows were read" in error_of(config, data=empty)
    message = error_of(config, data=only_b, filters=["no_demonstration"])
    assert "No training problem is left" in message
    assert "'dropped_no_demonstration': 1" in message


def test_equal_configurations_share_one_problem_set_until_the_file_changes(config, write_rows):
    first = load(config)
    assert load(dict(reversed(config.items()))) is first
    assert load(config, max_response_tokens=31) is not first
    write_rows(ROWS[:1])
    assert len(load(config).train) == 1


# --- check


def test_check_is_empty_for_a_sound_problem_and_names_every_failure(config, write_rows):
    problems = load(config)
    verify = Grader(SAME_BOX, {}).grade
    for problem in problems.train:
        assert problem.check(problems.tokenizer, verify, 24, 32) == []
    row = {"prompt": "2 ?", "answer": "2", "demonstration": "so \\boxed{3}"}
    problems = load(config, data=write_rows([row], "flawed.jsonl"))
    failures = problems.train[0].check(problems.tokenizer, verify, 1, 4)
    assert len(failures) == 3
    assert "more than max_prompt_tokens (1)" in failures[0]
    assert "more than max_response_tokens (4)" in failures[1]
    assert "demonstration 0 is not accepted for the answer '2': WRONG" in failures[2]
    unreadable = problems.train[0].check(problems.tokenizer, lambda *_: Verdict.ERROR, 99, 99)
    assert "gold answer '2' is not accepted" in unreadable[0]


# --- settings and tokenizers


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_tokens": 1}, "Unknown env_config key 'max_tokens'. Known keys: data, tokenizer"),
        ({"data": None}, "env_config['data'] is missing"),
        ({"data": 3}, "must be a path, a dataset name"),
        ({"data": []}, "empty list"),
        ({"data": {"path": "x"}}, 'Allowed: "data" (needed)'),
        ({"data": ["a", "b"], "data_config": {"seed": 1}}, "not clear which source"),
        ({"data_config": [1]}, "must be a dict of keyword arguments"),
        ({"data_config": {"seed": 1}}, "has no meaning for the file"),
        ({"tokenizer": None}, "env_config['tokenizer'] is missing"),
        ({"tokenizer": "/no/such/dir"}, "'/no/such/dir') is not a directory"),
        ({"tokenizer": "no/model"}, "neither a directory here nor a model in the local"),
        ({"max_prompt_tokens": 0}, "at least 1, got 0"),
        ({"max_response_tokens": 8192.0}, "whole number of at least 1, got 8192.0"),
        ({"max_response_tokens": True}, "whole number"),
        ({"max_response_tokens": None}, "whole number"),
        ({"vocab_size": "many"}, "'vocab_size'] must be a whole number"),
        ({"held_out_fraction": 20}, "in [0, 1), got 20. It is a share, not a percentage: use 0.2"),
        ({"held_out_fraction": 1}, "in [0, 1), got 1"),
        ({"held_out_fraction": "0.2"}, "in [0, 1), got '0.2'"),
        ({"held_out_data": "x.jsonl"}, "must map a name to a source"),
        ({"held_out_data": {"train": "x.jsonl"}}, "has the name 'train'"),
        ({"held_out_data": {"held_out": "x"}, "held_out_fraction": 0.1}, "Rename it"),
        ({"filters": ["too_long"]}, "Unknown filter 'too_long'. Known filters: prompt_too_long"),
        ({"filters": "prompt_too_long"}, "must be a list of names"),
        ({"fields": {"question": "q"}}, "It maps our field names"),
        ({"rewards": {"RIGHT": 1.0}}, "unknown verdict 'RIGHT'. Verdicts: CORRECT, WRONG"),
        ({"rewards": {"WRONG": float("inf")}}, "finite number, got inf"),
        ({"rewards": {"WRONG": "-1"}}, "finite number, got '-1'"),
        ({"rewards": 1.0}, "must be a dict"),
        ({"verifier": 3}, "must be text"),
        ({"verifier": "mathematics"}, "mathematics"),
        ({"system_prompt": 3}, "must be text"),
        ({"prompt_template": "Solve:"}, "does not contain {prompt}"),
        ({"chat_template": "chatml"}, "None, True or False, got 'chatml'"),
        ({"cut_prefix_before_answer": None}, "True or False, got None"),
        (
            {"verifier": "math", "verifier_config": {"extract": "last"}},
            "cut_prefix_before_answer=False or extract='boxed'",
        ),
        ({"verifier": "math", "verifier_config": {"speed": 1}}, "speed"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(config, changes, expected):
    def build():
        return load(config, **changes).grader

    with pytest.raises(ValueError) as caught:
        build()
    assert expected in str(caught.value)


def test_settings_can_be_checked_without_reading_anything():
    settings = EnvSettings.from_config({"data": "later.jsonl", "tokenizer": "later"})
    assert (settings.max_prompt_tokens, settings.max_response_tokens) == (1024, 8192)
    assert settings.rewards == {"CORRECT": 1.0}


def test_a_tokenizer_without_end_token_is_an_error(config, tmp_path):
    directory = save_byte_level_bpe(tmp_path / "endless", end=None)
    assert "has no end token" in error_of(config, tokenizer=directory)


def test_a_directory_without_tokenizer_is_an_error(config, tmp_path):
    assert "holds no tokenizer" in error_of(config, tokenizer=str(tmp_path))


def test_an_unknown_problem_id_shows_what_ids_look_like(config):
    with pytest.raises(ValueError, match=r"no problem with the id 'z'.*'a', 'b', 'c'"):
        load(config).by_id("z")
