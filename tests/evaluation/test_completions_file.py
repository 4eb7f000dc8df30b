"""The file of completions: what a kill leaves, and what belongs to another evaluation."""

import json

import pytest

from prefix_rft_rllib.evaluation.completions import CompletionsFile, read_completions
from prefix_rft_rllib.evaluation.questions import Question
from tests.evaluation.completion_cases import completion

FINGERPRINT = {"model": "here", "model_files": "ab", "problems": "cd", "temperature": 0.6}
ROWS = [completion("a", None), completion("a", 0, 1, is_correct=False), completion("b", 0)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "new" / "bench.jsonl"
    with CompletionsFile(path, FINGERPRINT) as file:
        file.append(ROWS[:1])
        file.append(ROWS[1:])
    return path


def test_what_was_written_is_read_again(path):
    with CompletionsFile(path, FINGERPRINT) as file:
        assert file.by_question == {row.question: row for row in ROWS}
        assert Question("a", 0, 1) in file.by_question


def test_a_kill_at_any_byte_leaves_a_file_that_goes_on(path, caplog):
    data = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    for cut in range(len(data) + 1):
        caplog.clear()
        path.write_bytes(data[:cut])
        num_whole = sum(end <= cut for end in ends)
        with CompletionsFile(path, FINGERPRINT) as file:
            assert len(file.by_question) == max(0, num_whole - 1)
            file.append([row for row in ROWS if row.question not in file.by_question])
        assert path.read_bytes() == data
        assert ("is dropped" in caplog.text) == (cut not in (0, *ends))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_files": "xx"}, "`model_files` is 'ab' there and 'xx' now"),
        ({"problems": "xx"}, "`problems` is 'cd' there and 'xx' now"),
        ({"temperature": 1.0}, "`temperature` is 0.6 there and 1.0 now"),
        ({"top_p": 1.0}, "`top_p` is None there and 1.0 now"),
    ],
)
def test_completions_of_another_evaluation_are_refused_and_it_is_said_which(path, changes, message):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"another evaluation: {message}"):
        CompletionsFile(path, {**FINGERPRINT, **changes})
    assert path.read_bytes() == before


def test_a_model_that_has_moved_is_the_same_model(path):
    with CompletionsFile(path, {**FINGERPRINT, "model": "elsewhere"}) as file:
        assert len(file.by_question) == 3


def test_two_evaluations_do_not_write_to_one_file(path):
    with (
        CompletionsFile(path, FINGERPRINT),
        pytest.raises(ValueError, match="another evaluation is writing to it"),
    ):
        CompletionsFile(path, FINGERPRINT)


@pytest.mark.parametrize("line", ["{", "{}", "[]", '{"problem_id": "a"}', "\xff"])
def test_a_broken_line_before_the_end_is_named(path, line):
    path.write_bytes(path.read_bytes() + line.encode() + b"\n")
    with pytest.raises(ValueError, match=r"bench.jsonl:5: no line of a file of completions"):
        read_completions(path)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text('{"prompt": "1+1?", "answer": "2"}\n')
    with pytest.raises(ValueError, match=r"problems.jsonl:1: no line of a file of completions"):
        CompletionsFile(path, FINGERPRINT)
    path.write_text(json.dumps({"format": 2, "fingerprint": {}}) + "\n")
    with pytest.raises(ValueError, match="its `format` is 2, known is 1"):
        CompletionsFile(path, FINGERPRINT)


def test_an_answer_that_stands_there_twice_is_an_error(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(ValueError, match=r"bench.jsonl:5: answers .*'a'.* a second time"):
        read_completions(path)
