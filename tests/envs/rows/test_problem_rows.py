import gzip
import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from tests.envs.problem_data import ROWS, error_of, load


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
        ('{"prompt": "x", "answer": NaN}', "the problem has no answer"),
        ('{"prompt": "x", "answer": true}', 'for example "True"'),
        ('{"prompt": "x", "solution": ["1"]}', "field 'solution' must be text, got list"),
        ('{"prompt": "x", "answer": "1", "demonstration": 7}', "field 'demonstration' must be"),
        ('{"prompt": "x", "answer": "1", "demonstrations": [7]}', "field 'demonstrations' must"),
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
    part = {"prompt": {"text": "2 ?"}, "answer": "2"}
    assert "prompt.1.content" in error_of(config, data=write_rows([part]))


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
