"""Small files in every form of the table in docs/problems.md: preflight and one iteration."""

import csv
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from prefix_rft_rllib.envs.problems import load_problem_set
from prefix_rft_rllib.preflight import main
from tests.small_configs import MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS

pytest_plugins = ("tests.algorithm_fixtures",)

DOCS = Path(__file__).parents[1] / "docs" / "problems.md"
SUMS = [(2, 3), (4, 4), (1, 6), (5, 2)]
SYSTEM = {"role": "system", "content": "Box it ."}


def user(a, b):
    return {"role": "user", "content": f"{a} + {b} ?"}


def solution(a, b):
    return f"so \\boxed{{{a + b}}}"


def assistant(a, b):
    return {"role": "assistant", "content": solution(a, b)}


def verl(a, b, **more):
    reward_model = {"style": "rule", "ground_truth": str(a + b)}
    return {"data_source": "sums", "prompt": [user(a, b)], "reward_model": reward_model, **more}


def with_system(a, b, **more):
    return {**verl(a, b), "prompt": [SYSTEM, user(a, b)], **more}


def openr1(a, b):
    return {
        "problem": f"{a} + {b} ?",
        "answer": str(a + b),
        "generations": [solution(a, b), "so \\boxed{0}"],
        "correctness_math_verify": [True, False],
        "messages": [user(a, b), assistant(a, b)],
    }


def trl(a, b):
    return {"prompt": [user(a, b)], "completion": [assistant(a, b)], "solution": str(a + b)}


def plain(a, b):
    return {"prompt": f"{a} + {b} ?", "answer": str(a + b), "demonstration": solution(a, b)}


def rows() -> list[dict[str, str]]:
    return [plain(*pair) for pair in SUMS]


def parquet(path, given_rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(given_rows), path / "rows.parquet")
    return str(path / "rows.parquet")


def json_list(path, given_rows):
    (path / "rows.json").write_text(json.dumps(given_rows))
    return str(path / "rows.json")


def table(path, given_rows):
    with (path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, given_rows[0])
        writer.writeheader()
        writer.writerows(given_rows)
    return str(path / "rows.csv")


def luffy(path):
    targets = [[assistant(*SUMS[0])], [None], [], None]
    given = [with_system(*pair, target=t) for pair, t in zip(SUMS, targets, strict=True)]
    return parquet(path, given)


FORMS = {
    "verl": (lambda path: parquet(path, [verl(*pair) for pair in SUMS]), 0, False),
    "verl, system message": (lambda p: parquet(p, [with_system(*pair) for pair in SUMS]), 0, True),
    "LUFFY, null targets": (luffy, 1, True),
    "OpenR1": (lambda path: parquet(path, [openr1(*pair) for pair in SUMS]), 4, False),
    "TRL, conversational": (lambda path: json_list(path, [trl(*pair) for pair in SUMS]), 4, False),
    "CSV": (lambda path: table(path, rows()), 4, False),
    "JSON list": (lambda path: json_list(path, rows()), 4, False),
    "function": (lambda path: f"{__name__}:rows", 4, False),
}
"""How a form is written, its demonstrations, and whether it has a system message."""


def test_the_page_has_a_line_for_every_form():
    page = DOCS.read_text()
    for name in FORMS:
        assert f"\n| {name} |" in page


@pytest.mark.integration
@pytest.mark.parametrize("name", FORMS)
def test_a_form_passes_the_preflight_and_trains(
    cluster, make_config, tiny_model_dir, tmp_path, capsys, name
):
    write, num_demonstrations, has_system = FORMS[name]
    data = write(tmp_path)
    limits = ["--max-prompt-tokens", str(MAX_PROMPT_TOKENS)]
    limits += ["--max-response-tokens", str(MAX_RESPONSE_TOKENS)]
    assert main(["--data", data, "--tokenizer", tiny_model_dir, *limits]) == 0
    shown = capsys.readouterr().out
    assert f"4 problems, {num_demonstrations} demonstrations" in shown
    assert "gold answers: 4 of 4 gradeable" in shown
    system = "<system>Box it ." if has_system else ""
    assert f"  | {system}<user>2 + 3 ?<assistant>" in shown
    env_config = {"data": data, "data_config": {}}
    method = {"method": "prefix_rft"} if num_demonstrations else {"method": "rft"}
    method_config = {"num_schedule_iterations": 4} if num_demonstrations else {}
    sizes = {"group_size": 2, "num_problems_per_iteration": 4, "num_problems_per_minibatch": 4}
    config = make_config(env_config, **method, method_config=method_config, **sizes)
    algo = config.reporting(run_dir=str(tmp_path / "run")).build_algo()
    try:
        rollouts = algo.train()["rollouts"]
    finally:
        algo.stop()
    assert rollouts["num_rollouts"] == 8
    assert rollouts["num_prefix_rollouts"] == num_demonstrations  # one for each problem with one


def test_a_user_s_verifier_reads_the_numbers_of_a_row_and_nobody_uses_them_up(
    tiny_model_dir, tmp_path
):
    row = {"prompt": "Make 7 of 3 , 4 .", "answer": "7", "meta": {"numbers": [3, 4], "target": 7}}
    texts = ["\\boxed{3 + 4}", "\\boxed{4 + 3}", "\\boxed{7}"]
    (tmp_path / "countdown.jsonl").write_text(json.dumps({**row, "demonstrations": texts}))
    problems = load_problem_set(
        {
            "data": str(tmp_path / "countdown.jsonl"),
            "tokenizer": tiny_model_dir,
            "verifier": "tests.envs.fake_verifiers:countdown",
        }
    )
    (problem,) = problems.train
    graded = [problems.grade_response(problem, ids)[1] for ids in problem.demonstration_ids]
    assert graded == [1.0, 1.0, 0.0]
    assert problem.extra == {"meta": row["meta"]}
