"""Files that people have: lists, tables, cut archives, bad text."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from tests.envs.problem_data import ROWS, error_of, load

LONG = b"9" * 5001
GOOD = json.dumps(ROWS[0]).encode()


@pytest.fixture
def write(tmp_path):
    def write_bytes(name: str, data: bytes) -> str:
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return write_bytes


def facts(problems):
    return [(p.problem_id, p.prompt, p.answer, p.demonstration_texts) for p in problems.train]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_lists_tables_and_lines_give_the_same_problems(config, write, ending):
    expected = facts(load(config))
    as_list = write(f"list.json{ending}", b"\xef\xbb\xbf" + json.dumps(ROWS, indent=1).encode())
    lines = write(f"lines.json{ending}", "\n".join(map(json.dumps, ROWS)).encode())
    table = "\ufeffid,prompt,answer,demonstrations\r\n"
    table += "a,What is 2 + 3 ?,5,2 + 3 = 5 so \\boxed{5}\r\nb,What is 3 + 9 ?,12,\r\n\r\n"
    table += 'c,What is 34 ?,34,"[""34 = \\\\boxed{34}"", ""é = \\\\boxed{34} .""]"\r\n'
    for data in (as_list, lines, write(f"table.csv{ending}", table.encode())):
        problems = load(config, data=data)
        assert facts(problems) == expected, data
    assert [p.source.rpartition(":")[2] for p in problems.train] == ["2", "3", "5"]


def test_cells_of_a_table_are_texts_as_they_stand(config, write):
    data = write("t.csv", b'prompt,answer,n,note\n"a, ""b""\nc ?",007,1.50,\nd ?,"1,2",,x\n')
    first, second = load(config, data=data).train
    assert (first.prompt, first.answer) == ('a, "b"\nc ?', "007")
    assert first.extra == {"n": "1.50", "note": None}
    assert (second.answer, second.source) == ("1,2", f"{data}:4")


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("t.csv", b"prompt,answer\na,5\nb,5,6\n", ":3: the row has 3 columns, the header 2"),
        ("t.csv", b"prompt,answer\na\n", ":2: the row has 1 columns"),
        ("t.csv", b"prompt;answer\na;5\n", ":1: the header is one column, 'prompt;answer'"),
        ("t.csv", b"prompt,answer,prompt\na,5,b\n", ":1: the header has the column 'prompt' twice"),
        ("t.csv", b'prompt,answer\na,"5\n', ":2: the line is not valid CSV"),
        ("t.csv", b"prompt,answer\na,5\nb,\xff\n", ":3: the line is not UTF-8 text"),
        ("t.csv", b"prompt,answer\n", "No problem was found"),
        ("t.json", b'{"data": [\n{}]}', ":1: the line is not valid JSON"),
        ("t.json", b'{"data": []}', ":1: the problem has no prompt"),
        ("t.json", b'[{"prompt": "a", "answer": "1"}, 7]', ":2: a row must be a JSON object"),
        ("t.json", b'[{"prompt": "a"', ": the file is not valid JSON"),
        ("t.json", b'[{"a": ' + LONG + b"}]", ": field '0.a': a whole number has more than 4,300"),
        ("t.jsonl", b'{"answer": ' + LONG + b"}", ":1: field 'answer': a whole number has more"),
        ("t.jsonl", b'{"answer": -' + LONG + b"}", ":1: field 'answer': a whole number has more"),
        ("t.jsonl", GOOD + b'\n{"m": {"n": [' + LONG + b"]}}", ":2: field 'm.n.0': a whole number"),
        ("t.jsonl", b'{"prompt": "a\xff"}', ":1: field 'prompt': the line is not UTF-8 text"),
        ("t.jsonl", b'{"m": ["a", "\xe9"]}', ":1: field 'm.1': the line is not UTF-8 text"),
        ("t.jsonl", b"[" * 100_000, ":1: the line is nested too deep"),
        ("t.jsonl", b"\0" * 9, ":1: the line is not valid JSON"),
        ("t.jsonl", b'{"prompt": "a", "answer": "\\ud83d"}', ":1: field 'answer' has half of a"),
        ("t.jsonl", b'{"prompt": "\\udc00", "answer": "1"}', ":1: field 'prompt' has half of a"),
        ("t.jsonl", b'{"prompt": "a", "answer": "1", "id": "\\udc00"}', ":1: field 'id' has half"),
        (
            "t.jsonl",
            b'{"prompt": "a", "answer": "1", "demonstrations": ["b", "\\ud83d\\ud83d"]}',
            ":1: field 'demonstrations' has half of a surrogate pair, '\\ud83d', at character 0",
        ),
        ("t.jsonl", b"", "No problem was found"),
    ],
)
def test_bad_text_names_file_line_and_field(config, write, name, data, expected):
    path = write(name, data)
    message = error_of(config, data=path)
    assert message.startswith(path) or "No problem" in expected
    assert expected in message


@pytest.mark.parametrize("name", ["cut.csv.gz", "cut.json.gz", "cut.jsonl.gz"])
def test_a_cut_archive_is_named(config, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"\n" * 999)[:-10])
    assert f"{path} is not a complete gzip file" in error_of(config, data=str(path))


def test_bad_text_in_a_table_of_columns_names_row_and_field(config, tmp_path):
    texts = pyarrow.array([b"a", b"b\xff"], pyarrow.binary()).view(pyarrow.string())
    table = pyarrow.table({"prompt": texts, "answer": ["1", "2"]})
    pyarrow.parquet.write_table(table, tmp_path / "bad.parquet")
    message = error_of(config, data=str(tmp_path / "bad.parquet"))
    assert "bad.parquet:2: field 'prompt': the text is not UTF-8" in message


def test_long_lines_and_cells_control_characters_and_byte_order_marks_are_text(config, write):
    text = "a\0b\x1b " + "x" * 200_000
    limits = {"max_prompt_tokens": 300_000}
    row = {"prompt": text, "answer": "1"}
    lines = write("long.jsonl", b"\xef\xbb\xbf" + json.dumps(row).encode())
    table = write("long.csv", f"prompt,answer\n{text},1\n".encode())
    for data in (lines, table):
        (problem,) = load(config, data=data, **limits).train
        assert problem.prompt == text


@pytest.mark.parametrize("name", ["t.tsv", "t.xlsx", "t.txt", "t.jsonl.zst"])
def test_other_files_say_what_can_be_read(config, write, name):
    message = error_of(config, data=write(name, b"x"))
    assert "cannot read" in message
    assert ".jsonl, .json, .csv, .parquet" in message
