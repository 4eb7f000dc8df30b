"""The command `python -m prefix_rft_rllib.verify`."""

import gzip
import json

import pytest

from prefix_rft_rllib.verify import main

ROWS = [
    {"id": "a", "response": r"so \boxed{0.5}", "gold": r"\frac{1}{2}", "expected": True},
    {"id": "b", "response": r"so \boxed{3}", "gold": r"3\sqrt{13}", "expected": True},
    {"id": "c", "kind": "answer_pair", "response": "2/4", "gold": "1/2", "expected": True},
    {"id": "d", "kind": "choice", "response": "C", "gold": "C", "expected": True},
    {"id": "e", "kind": "format", "response": "x", "gold": None, "expected": False},
    {"id": "f", "response": "no box\u2028here", "gold": "1", "settings": {"ignored": 1}},
]


def write(path, lines):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_counts_disagreements_and_rates_are_printed(tmp_path, capsys, name):
    # A raw U+2028 inside a text is no line break.
    file = write(tmp_path / name, [json.dumps(row, ensure_ascii=False) for row in ROWS])
    out = tmp_path / "graded.jsonl"
    assert main([file, "--out", str(out), "--workers", "1", "--timeout", "5"]) == 0
    printed, progress = capsys.readouterr()
    assert "graded 5 rows" in printed
    assert "per second" in printed
    assert "not applicable: 1 {'format': 1}" in printed
    assert "agree with `expected`: 3 of 4 (75.00%)" in printed
    assert "line 2, id b (response): WRONG, expected CORRECT" in printed
    assert "6/6" in progress
    graded = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n") if line]
    assert [row["verdict"] for row in graded] == [
        "CORRECT", "WRONG", "CORRECT", "CORRECT", None, "UNPARSEABLE",
    ]  # fmt: skip
    assert [row["agrees"] for row in graded] == [True, False, True, True, None, None]
    assert graded[5]["response"] == "no box\u2028here"


def test_the_last_expression_is_an_option(tmp_path, capsys):
    file = write(tmp_path / "rows.jsonl", [json.dumps({"response": "it is 5", "gold": "5"})])
    assert main([file, "--extract", "last", "--workers", "1"]) == 0
    assert "CORRECT            1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not a JSON object"),
        ("[1]", "line 2: must be a JSON object, got list"),
        ('{"gold": "1"}', "line 2, field `response`: must be a text, got no such field"),
        ('{"response": "1", "gold": 5}', "line 2, field `gold`: must be a text, got 5"),
        ('{"response": "1", "gold": "1", "kind": "pair"}', "line 2, field `kind`: got 'pair'"),
        ('{"response": "1", "gold": "1", "expected": "yes"}', "line 2, field `expected`: must be"),
    ],
)
def test_a_bad_row_names_file_line_and_field(tmp_path, capsys, line, message):
    file = write(tmp_path / "rows.jsonl", [json.dumps(ROWS[0]), line])
    assert main([file]) == 2
    assert f"{file}, {message}" in capsys.readouterr().err


def test_a_missing_or_empty_file_is_a_clear_error(tmp_path, capsys):
    assert main([str(tmp_path / "none.jsonl")]) == 2
    assert main([write(tmp_path / "empty.jsonl", [""])]) == 2
    assert "no rows" in capsys.readouterr().err


ADD = {"kind": "asserts", "asserts": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]}
ECHO = {"kind": "stdin_stdout", "cases": [{"input": "a b", "output": "a b\n"}]}
CODE_ROWS = [
    {"id": "a", "response": "def add(a, b): return a + b", "tests": ADD, "expected": "pass"},
    {"id": "b", "response": "def add(a, b): return 3", "tests": ADD, "expected": "pass"},
    {"id": "c", "response": "```python\nprint(input())\n```", "tests": ECHO, "expected": True},
    {"id": "d", "response": "def add(a, b): return a - b", "problem_id": "p", "expected": "fail"},
    {"id": "e", "response": r"\boxed{2/4}", "problem_id": "m", "expected": True},
]
PROBLEMS = [
    {"id": "p-0", "problem_id": "p", "domain": "code", "tests": ADD, "entry_point": "add"},
    {"id": "m", "domain": "math", "answer": "0.5"},
]


def test_code_and_math_rows_are_graded_in_one_file(tmp_path, capsys):
    file = write(tmp_path / "rows.jsonl", [json.dumps(row) for row in CODE_ROWS])
    problems = write(tmp_path / "problems.jsonl", [json.dumps(row) for row in PROBLEMS])
    out = tmp_path / "graded.jsonl"
    arguments = [file, "--problems", problems, "--out", str(out), "--workers", "2"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "graded 5 rows" in printed
    assert "isolation of code: " in printed
    assert "agree with `expected`: 4 of 5 (80.00%)" in printed
    assert "line 2, id b (code): WRONG, expected CORRECT; the assertion does not hold; " in printed
    graded = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["verdict"] for row in graded] == ["CORRECT", "WRONG", "CORRECT", "WRONG", "CORRECT"]
    assert (graded[1]["test"], graded[1]["got"]) == ("assert add(2, 2) == 4", "3")
    assert (graded[1]["num_passed"], graded[1]["num_tests"]) == (1, 2)


def test_choices_are_graded_with_the_options_of_their_problem(tmp_path, capsys):
    rows = [
        {"response": r"\boxed{Rome}", "problem_id": "c", "expected": True},
        {"response": "A", "kind": "choice", "gold": "B", "expected": True},
        {"response": "The answer is A.", "domain": "choice", "gold": "A", "expected": True},
    ]
    problem = {"id": "c", "domain": "choice", "answer": "B", "prompt": "?\n(A) Paris\n(B) Rome"}
    file = write(tmp_path / "rows.jsonl", [json.dumps(row) for row in rows])
    problems = write(tmp_path / "problems.jsonl", [json.dumps(problem)])
    assert main([file, "--problems", problems]) == 0
    printed = capsys.readouterr().out
    assert "agree with `expected`: 2 of 3" in printed
    assert "line 2, id - (choice): WRONG, expected CORRECT; gold 'B', response 'A'" in printed
    assert main([write(tmp_path / "bad.jsonl", ['{"kind": "choice", "response": "A"}'])]) == 2
    assert "field `gold`: must be a text" in capsys.readouterr().err
    row = {"kind": "choice", "response": "A", "gold": "A", "prompt": ["(A)"]}
    assert main([write(tmp_path / "bad.jsonl", [json.dumps(row)])]) == 2
    assert "field `prompt`: must be a text, got ['(A)']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (CODE_ROWS[3], "field `gold`: must be a text, got no such field (for a row with only a"),
        ({"response": "x", "tests": {"kind": "assert"}}, "`tests.kind` must be one of"),
        ({"response": "x", "tests": ADD, "expected": "yes"}, "field `expected`: must be true"),
        ({"tests": ADD}, "field `response`: must be a text"),
    ],
)
def test_a_bad_code_row_names_file_line_and_field(tmp_path, capsys, row, message):
    file = write(tmp_path / "rows.jsonl", [json.dumps(row)])
    assert main([file]) == 2
    assert message in capsys.readouterr().err


def test_what_a_model_wrote_reaches_no_terminal_as_it_is(tmp_path, capsys):
    hostile = "\\x1b[2J\\x9b31m\\r\\n\\0\\ud800"
    codes = [
        f"raise ValueError('{hostile}')",
        f"print('{hostile}'.encode('utf-8', 'replace'))\ndef add(a, b): return '{hostile}'",
        f"def add(a, b): raise SystemExit('{hostile}')",
        "\x1b[31m = =",
    ]
    rows = [{"response": code, "tests": ADD, "expected": "pass"} for code in codes]
    rows.append({"response": "\x1b[2J\x9b\n", "gold": "\x1b[1m", "expected": True})
    file = write(tmp_path / "rows.jsonl", [json.dumps(row) for row in rows])
    assert main([file, "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert r"the code raised ValueError: \x1b[2J\x9b31m\r\n\x00\ud800; test" in printed
    lines = printed.split("\n")
    assert len([line for line in lines if ", expected CORRECT; " in line]) == 5
    assert all(line.isascii() and (line.isprintable() or not line) for line in lines)
