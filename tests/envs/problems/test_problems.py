import hashlib
import logging
import random

from prefix_rft_rllib.envs.token_env import TokenEnv
from tests.envs.problem_data import ROWS, error_of, load, texts
from tests.envs.small_tokenizers import END


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
        (demonstration,) = problem.demonstration_ids
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
    (demonstration,) = problems.by_id("a").demonstration_ids
    assert tokenizer.bos_token_id not in demonstration


def test_a_missing_chat_template_is_an_error_only_if_it_was_asked_for(config):
    assert "has no chat template" in error_of(config, chat_template=True)


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
    exact = len(problem.demonstration_ids[0])
    assert len(load(config, max_response_tokens=exact).by_id("c").demonstration_ids) >= 1
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


def test_an_answer_without_a_verdict_is_no_reason_to_drop_its_problem(config, write_rows):
    # Box 7 runs out of time, box 8 makes the verifier raise: in another process they may not.
    rows = [{"prompt": f"{answer} ?", "answer": answer} for answer in ("5", "7", "8", "{", "?!")]
    changes = {"filters": ["no_parseable_answer"], "data": write_rows(rows)}
    problems = load(config, verifier="tests.envs.fake_verifiers:undecided", **changes)
    assert [p.answer for p in problems.train] == ["5", "7", "8", "?!"]
    assert problems.counts["dropped_no_parseable_answer"] == 1
    # An answer without any content is no answer, although the verdict is ERROR.
    broken = load(config, verifier="tests.envs.fake_verifiers:broken", **changes)
    assert [p.answer for p in broken.train] == ["5", "7", "8"]


def test_the_vocabulary_is_measured_once_per_problem_set(config, monkeypatch):
    problems = load(config)
    tokenizer = problems.tokenizer
    assert problems.smallest_vocab_size == max(tokenizer.get_vocab().values()) + 1
    monkeypatch.setattr(tokenizer, "get_vocab", None)
    assert TokenEnv(**config).vocab_size == problems.smallest_vocab_size
