"""Code problems in the token environment, alone and mixed with mathematics."""

import json

import gymnasium as gym
import pytest

from prefix_rft_rllib.envs import CodeEnv, TokenEnv, load_problem_set
from prefix_rft_rllib.envs.demonstrations.answer_cut import answer_cut, last_code_line
from prefix_rft_rllib.envs.problems.problem import Problem
from prefix_rft_rllib.envs.verifiers import Verdict, load_verifier
from prefix_rft_rllib.envs.verifiers.code_tests import is_task, pack_task, unpack_task
from prefix_rft_rllib.preflight import preflight
from tests.envs.problem_data import ROWS, error_of

TESTS = {"kind": "asserts", "asserts": ["assert f(1) == 2", "assert f(2) == 3"]}
CODE_ROW = {
    "id": "code-a",
    "domain": "code",
    "prompt": "Write f, the successor.",
    "tests": TESTS,
    "entry_point": "f",
    "demonstration": "```python\ndef f(x):\n    y = x\n    return y + 1\n```",
}
FAST = {"num_workers": 1, "timeout_s": 5.0}


@pytest.fixture
def code_config(bpe, write_rows):
    return {
        "data": write_rows([CODE_ROW], "code.jsonl"),
        "tokenizer": bpe,
        "max_prompt_tokens": 64,
        "max_response_tokens": 128,
        "verifier_config": FAST,
    }


def final_step(env, problem_id, text):
    """Write a response token by token; return reward and info of the last step."""
    tokenizer = env.problem_set.tokenizer
    env.reset(options={"problem_id": problem_id})
    for token in [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]:
        _, reward, terminated, _, info = env.step(token)
    assert terminated
    return reward, info


def test_a_program_that_passes_its_tests_is_paid(code_config):
    env = CodeEnv(**code_config)
    for text, reward, verdict in [
        (CODE_ROW["demonstration"], 1.0, "CORRECT"),
        ("```python\ndef f(x): return 2\n```", 0.0, "WRONG"),
        ("def f(x): return x + 1", 0.0, "UNPARSEABLE"),
    ]:
        got, info = final_step(env, "code-a", text)
        assert (got, info["verdict"]) == (reward, verdict)
        assert ("test" in info["verdict_details"]) == (verdict == "WRONG")


def test_the_share_of_passed_tests_can_be_the_reward(code_config):
    config = {**FAST, "share_reward": True}
    env = CodeEnv(**{**code_config, "verifier_config": config})
    reward, info = final_step(env, "code-a", "```python\ndef f(x): return 2\n```")
    assert (reward, info["verdict"]) == (0.5, "SCORED")
    assert info["verdict_details"].pop("isolation") in ("namespaces", "none")
    assert info["verdict_details"] == {
        "reason": "the assertion does not hold",
        "test": "assert f(2) == 3",
        "got": "2",
        "num_passed": 1,
        "num_tests": 2,
    }


def test_each_problem_of_mixed_data_meets_its_own_verifier(code_config, write_rows):
    data = [code_config["data"], write_rows(ROWS, "math.jsonl")]
    verifier_config = {"code": FAST, "math": {"num_workers": 1}}
    config = {**code_config, "data": data, "verifier_config": verifier_config}
    env = TokenEnv(**config, verifier="domain")
    assert final_step(env, "code-a", CODE_ROW["demonstration"])[1]["verdict"] == "CORRECT"
    assert final_step(env, "code-a", "\\boxed{5}")[1]["verdict"] == "UNPARSEABLE"
    assert final_step(env, "a", "\\boxed{5}")[1]["verdict"] == "CORRECT"
    assert final_step(env, "a", CODE_ROW["demonstration"])[1]["verdict"] == "UNPARSEABLE"
    assert final_step(env, "a", "\\boxed{5}")[1]["verdict_details"] == {}
    assert "reason" in final_step(env, "code-a", "\\boxed{5}")[1]["verdict_details"]


def test_the_environment_is_registered(code_config):
    env = gym.make("PrefixRFT/Code-v0", **code_config)
    assert isinstance(env.unwrapped, CodeEnv)
    assert env.unwrapped.problem_set.settings.verifier == "code"


def test_tests_are_kept_as_the_answer_and_prove_the_problem(code_config):
    problem_set = load_problem_set({**code_config, "verifier": "code"})
    (problem,) = problem_set.problems
    assert (problem.domain, unpack_task(problem.answer)) == ("code", (TESTS, "f"))
    assert preflight(problem_set, progress=False).verdicts == {"CORRECT": 1}
    assert problem_set.grader.grade_answers([problem]) == [Verdict.CORRECT]
    assert is_task(pack_task(TESTS, None))
    assert not is_task('{"code": 5}')


def test_a_prefix_never_holds_the_whole_program(code_config):
    problem_set = load_problem_set({**code_config, "verifier": "code"})
    cut = answer_cut(problem_set, "code-a", 0)
    text = problem_set.tokenizer.decode(problem_set.demonstration("code-a", 0)[:cut])
    assert text.startswith("```python\ndef f(x):\n    y = x")
    assert "return" not in text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("So:\n```python\na = 1\nb = 2\n\n```\nDone.", "b = 2\n\n```\nDone."),
        ("```\nprint(1)\n```", "print(1)\n```"),
        ("x = 1\ny = 2", "y = 2"),
        ("  ", None),
    ],
)
def test_the_last_line_of_the_program_is_found(text, line):
    place = last_code_line(text)
    assert (None if place is None else text[place:]) == line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tests": {"kind": "pytest"}}, "field 'tests': `tests.kind` must be one of"),
        ({"tests": {"kind": "check", "code": "x"}, "entry_point": None}, "`entry_point` must be"),
        ({"tests": None}, "has no answer"),
    ],
)
def test_a_row_with_broken_tests_names_file_and_line(code_config, write_rows, changes, message):
    data = write_rows([CODE_ROW, {**CODE_ROW, "id": "b", **changes}], "broken.jsonl")
    error = error_of({**code_config, "verifier": "code"}, data=data)
    assert f"{data}:2" in error
    assert message in error


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("domain", {"timeout_s": 5.0}, "dicts by domain"),
        ("domain", {"chemistry": {}}, "dicts by domain"),
        ("code", {"share_reward": 1}, "`share_reward` must be True or False"),
        ("code", {"timeout": 1}, r"unknown setting\(s\) \['timeout'\]"),
        ("codes", {}, "known: 'math', 'code', 'choice', 'domain', or the import path"),
    ],
)
def test_a_wrong_verifier_setting_is_a_clear_error(name, config, message):
    with pytest.raises(ValueError, match=message):
        load_verifier(name, config)


def test_a_domain_without_a_verifier_is_a_clear_error():
    problem = Problem(
        problem_id="x", domain="law", prompt="", prompt_ids=(), answer="", demonstration_ids=(),
        split="train", source="x:1",
    )  # fmt: skip
    with pytest.raises(ValueError, match="no verifier is known for the domain 'law'"):
        load_verifier("domain")("text", problem)
    with pytest.raises(ValueError, match="needs tests"):
        load_verifier("code", FAST)("text", problem)


def test_a_row_with_tests_needs_no_domain(code_config, write_rows):
    row = {key: value for key, value in CODE_ROW.items() if key != "domain"}
    data = write_rows([row], "no_domain.jsonl")
    (problem,) = load_problem_set({**code_config, "verifier": "code", "data": data}).problems
    assert problem.domain == "code"
    assert json.loads(problem.answer)["entry_point"] == "f"
