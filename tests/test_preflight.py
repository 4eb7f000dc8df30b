import json
import subprocess
import sys
from pathlib import Path

import pytest

from prefix_rft_rllib.envs.problems import load_problem_set
from prefix_rft_rllib.preflight import main, preflight
from tests.envs.small_tokenizers import END, save_byte_level_bpe, save_lossy_words, save_normalising

SHARED_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
ROWS = [
    {"id": "a", "prompt": "What is 2 + 3 ?", "answer": "5", "demonstration": "so \\boxed{5}"},
    {"id": "b", "prompt": "What is 3 + 9 ?", "answer": "12", "demonstration": "é \\boxed{6}"},
    {"id": "c", "prompt": "What is 34 ?", "answer": "\\frac{68}{2}"},
]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory) -> str:
    return save_byte_level_bpe(tmp_path_factory.mktemp("bpe"), chat=True)


@pytest.fixture
def problem_set(bpe, tmp_path):
    def load(rows=ROWS, **changes):
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        config = {"data": str(path), "tokenizer": bpe, "max_response_tokens": 64, **changes}
        return load_problem_set(config)

    return load


def test_the_report_counts_verdicts_and_names_rejected_demonstrations(problem_set):
    problems = problem_set()
    report = preflight(problems, progress=False)
    assert (report.num_problems, report.num_ungradeable) == (3, 0)
    assert report.verdicts == {"CORRECT": 1, "WRONG": 1}
    (rejected,) = report.rejected
    assert rejected.source.endswith("data.jsonl:2")
    assert (rejected.problem_id, rejected.verdict) == ("b", "WRONG")
    assert report.counts == problems.counts


def test_one_prompt_and_one_prefix_state_are_shown_as_the_model_reads_them(problem_set):
    row = {**ROWS[0], "demonstration": "2 + 3 = 5 so the answer is \\boxed{5} ."}
    report = preflight(problem_set([row]), progress=False)
    assert report.prompt == "<|turn|>user: What is 2 + 3 ?\n<|turn|>assistant: "
    assert report.prefix is not None
    assert row["demonstration"].startswith(report.prefix)
    assert 0 < report.num_prefix_tokens < len(row["demonstration"])
    text = report.render()
    assert "  | <|turn|>user: What is 2 + 3 ?" in text
    assert "  | 2 + 3" in text
    assert "demonstrations: CORRECT 1" in text
    short = preflight(problem_set(), progress=False)
    assert short.prefix == "so"  # half of the demonstration, cut before its answer
    assert "warning: 1 of 2 demonstrations are not accepted" in short.render()
    assert "data.jsonl:2 (b): WRONG" in short.render()


def test_data_without_demonstrations_is_fine(problem_set):
    report = preflight(problem_set([ROWS[2]]), progress=False)
    assert report.prefix is None
    assert "demonstrations: none" in report.render()


def test_demonstrations_are_graded_as_decoded_tokens(problem_set):
    # The end token's text is a special token: it ends the response and is not part of it.
    report = preflight(problem_set([{**ROWS[0], "demonstration": f"\\boxed{{5}}{END}"}]))
    assert report.verdicts == {"CORRECT": 1}


def test_gold_answers_that_cannot_be_graded_are_one_error_with_their_lines(problem_set):
    rows = [*ROWS, {"id": "d", "prompt": "89 ?", "answer": "?!"}]
    with pytest.raises(ValueError) as caught:
        preflight(problem_set(rows), progress=False)
    assert "1 of 4 gold answers cannot be graded" in str(caught.value)
    assert "data.jsonl:4: field 'answer' is '?!'" in str(caught.value)
    assert "no_parseable_answer" in str(caught.value)


def test_a_custom_verifier_may_have_another_answer_format(problem_set):
    rows = [{**ROWS[0], "answer": "five"}]
    report = preflight(
        problem_set(rows, verifier="tests.envs.fake_verifiers:share_of_length"), progress=False
    )
    assert (report.num_ungradeable, report.verdicts) == (0, {"SCORED": 1})
    assert report.rejected[0].verdict == "SCORED"


@pytest.mark.parametrize(
    ("rows", "failing"), [(ROWS, r"demonstration \(2\)"), (ROWS[2:], r"gold answer \(1\)")]
)
def test_a_verifier_that_always_fails_is_one_error_with_its_reason(problem_set, rows, failing):
    problems = problem_set(rows, verifier="tests.envs.fake_verifiers:broken")
    with pytest.raises(ValueError, match=f"every {failing}.*RuntimeError: out of order"):
        preflight(problems, progress=False)


def test_a_verifier_that_fails_sometimes_is_counted(problem_set):
    rows = [{**ROWS[0], "answer": "8", "demonstration": text} for text in ("so \\boxed{8}", "2")]
    rows.append(ROWS[0])
    verifier = "tests.envs.fake_verifiers:undecided"
    rows[1]["prompt"] = rows[0]["prompt"] = "What is 8 ?"
    rows[0]["id"] = rows[1]["id"] = "e"
    report = preflight(problem_set(rows, verifier=verifier), progress=False)
    assert report.num_ungradeable == 1
    assert report.verdicts == {"ERROR": 1, "UNPARSEABLE": 1, "CORRECT": 1}


def test_a_tokenizer_that_loses_text_is_one_error_with_line_and_piece(problem_set, tmp_path):
    lossy = save_lossy_words(tmp_path / "lossy")
    fine = {"id": "a", "prompt": "What is 2 + 3 ?", "answer": "5"}
    with pytest.raises(ValueError) as caught:
        preflight(
            problem_set([fine, {**fine, "id": "b", "prompt": "What  is 3 ?"}], tokenizer=lossy),
            progress=False,
        )
    message = str(caught.value)
    assert "data.jsonl:2: field 'prompt': the tokenizer loses text" in message
    assert "' is 3 ?' at character 5 comes back as 'is 3 ?'" in message
    # Also the two answers: "\boxed{5}" is a word of this vocabulary, so they are kept.
    assert "1 of 4 texts are changed" in message


def test_a_lossy_demonstration_is_named_by_its_own_line(problem_set, tmp_path):
    lossy = save_lossy_words(tmp_path / "lossy")
    row = {"id": "a", "prompt": "What is 2 + 3 ?", "answer": "5"}
    rows = [{**row, "demonstration": text} for text in ("so \\boxed{5} .", "so unheard-of")]
    with pytest.raises(ValueError, match=r"jsonl:2: field 'demonstration'.*'unheard-of' at"):
        preflight(problem_set(rows, tokenizer=lossy), progress=False)


def test_the_command_prints_the_report_or_one_error(bpe, tmp_path, capsys):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(ROWS[0]))
    arguments = ["--data", str(path), "--tokenizer", bpe, "--max-response-tokens", "64"]
    assert main(arguments) == 0
    assert "Preflight: 1 problems, 1 demonstrations" in capsys.readouterr().out
    assert main([*arguments, "--env-config", '{"held_out_fraction": 20}']) == 1
    assert "error: env_config['held_out_fraction'] must be in [0, 1)" in capsys.readouterr().err


def test_texts_that_a_normalising_tokenizer_changes_can_be_dropped(problem_set, tmp_path):
    tokenizer = save_normalising(tmp_path / "normalising")
    fine = {"prompt": "what is 2 + 3 ?", "answer": "5"}
    rows = [
        {
            **fine,
            "id": "a",
            "demonstrations": ["so \\boxed{5}", "So \\boxed{5}", "e\u0301 \\boxed{5}"],
        },
        {**fine, "id": "b", "prompt": "What is 3 + 9 ?", "answer": "12"},
        {**fine, "id": "c", "prompt": "x\ufb01 ?"},
        {**fine, "id": "d", "prompt": "9 ?", "answer": "X"},
        {**fine, "id": "e", "prompt": "8 ?", "demonstration": "\uff18"},
    ]
    with pytest.raises(ValueError, match=r"jsonl:1: field 'demonstration': the tokenizer loses"):
        preflight(problem_set(rows, tokenizer=tokenizer), progress=False)
    problems = problem_set(rows, tokenizer=tokenizer, filters=["changed_by_tokenizer"])
    assert [p.problem_id for p in problems.train] == ["a", "e"]
    assert [p.demonstration_texts for p in problems.train] == [("so \\boxed{5}",), ()]
    assert problems.counts["dropped_changed_by_tokenizer"] == 3
    assert problems.counts["demonstrations_changed_by_tokenizer"] == 3
    assert preflight(problems, progress=False).verdicts == {"CORRECT": 1}
    both = ["changed_by_tokenizer", "no_demonstration"]
    problems = problem_set(rows, tokenizer=tokenizer, filters=both)
    assert [p.problem_id for p in problems.train] == ["a"]


def test_control_characters_are_shown_and_not_obeyed(problem_set, bpe, tmp_path, capsys):
    text = "so \x1b[2J\x07\u202e é 中\r\n \\boxed{6}"
    row = {"id": "\x1b[31m", "prompt": f"What is 2 \0 + 3 ?\n{text}", "answer": "5"}
    shown = preflight(problem_set([{**row, "demonstration": text}]), progress=False).render()
    assert not {"\x1b", "\x07", "\u202e", "\r", "\0"} & set(shown)
    assert "  | <|turn|>user: What is 2 \\x00 + 3 ?\n  | so \\x1b[2J\\x07\\u202e é 中\\r\n" in shown
    assert "data.jsonl:1 (\\x1b[31m): WRONG" in shown
    path = tmp_path / "\x1b.jsonl"
    path.write_text("{")
    assert main(["--data", str(path), "--tokenizer", bpe]) == 1
    assert "\\x1b.jsonl:1: the line is not valid JSON" in capsys.readouterr().err


def test_the_report_names_the_form_of_the_rows(problem_set):
    row = {"prompt": [{"role": "user", "content": "2 ?"}], "answer": "2"}
    text = preflight(problem_set([row]), progress=False).render()
    assert "rows_in_form:trl 1" in text


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the data in ../shared/data")
@pytest.mark.parametrize("name", ["train_gsm8k", "train_math", "train_limo_long"])
def test_every_verified_demonstration_of_real_data_is_correct(bpe, name):
    problems = load_problem_set(
        {
            "data": str(SHARED_DATA / f"{name}.jsonl.gz"),
            "tokenizer": bpe,
            "max_prompt_tokens": 8192,
            "max_response_tokens": 65536,
        }
    )
    report = preflight(problems, progress=False)
    assert report.verdicts == {"CORRECT": len(problems.train)}
    assert problems.counts["demonstrations_set_aside"] == 0


def test_as_a_command_it_prints_no_warning():
    command = [sys.executable, "-m", "prefix_rft_rllib.preflight", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "python -m prefix_rft_rllib.preflight" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("text", "expected"), [("[1]", "is no JSON object of names to values"), ("{x", "is not valid")]
)
def test_further_settings_of_the_command_are_a_json_object(capsys, text, expected):
    with pytest.raises(SystemExit):
        main(["--data", "a.jsonl", "--tokenizer", "t", "--env-config", text])
    assert expected in capsys.readouterr().err
