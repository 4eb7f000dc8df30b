"""Recipes of benchmarks: rows as the hub has them become problems; local files stay as they are."""

import importlib
import json
import pkgutil

import pytest

from prefix_rft_rllib.envs.rows.data_sources import DataSource
from prefix_rft_rllib.evaluation import benchmarks
from prefix_rft_rllib.evaluation.benchmarks import BENCHMARKS, converted_rows, find_benchmark
from prefix_rft_rllib.evaluation.benchmarks.word_problems import generate_rows

# By recipe: a row as its source has it, and what must become of it.
CASES = {
    "amc": (
        {"id": 0, "problem": "1+1?", "answer": 2.0, "url": "u"},
        {"id": 0, "prompt": "1+1?", "answer": "2.0", "url": "u", "domain": "math"},
    ),
    "olympiadbench": (
        {"id": 7, "question": "x^2=1", "solution": ["s"], "final_answer": ["1", "-1"]},
        {"id": 7, "prompt": "x^2=1", "answer": "1, -1", "domain": "math"},
    ),
    "gsm8k": (
        {"question": "How many?", "answer": "2 * 600 = <<2*600=1200>>1200\n#### 1,200"},
        {"prompt": "How many?", "answer": "1200", "domain": "math"},
    ),
    "svamp": (
        {"ID": "1", "Body": "A has 3. ", "Question": "How many?", "Answer": "3.0", "Type": "Sum"},
        {
            **{"ID": "1", "Type": "Sum", "prompt": "A has 3. How many?", "answer": "3.0"},
            "domain": "math",
        },
    ),
    "arc_c": (
        {
            **{"id": "q", "question": "Which?", "answerKey": "2"},
            "choices": {"text": ["sun", "moon"], "label": ["1", "2"]},
        },
        {"id": "q", "prompt": "Which?\n\nA. sun\nB. moon", "answer": "B", "domain": "choice"},
    ),
    "mmlu_pro": (
        {
            **{"question_id": 1, "question": "Which?", "options": ["x", "y"], "answer": "B"},
            **{"answer_index": 1, "category": "law", "cot_content": ""},
        },
        {
            **{"question_id": 1, "prompt": "Which?\n\nA. x\nB. y", "answer": "B"},
            **{"category": "law", "domain": "choice"},
        },
    ),
    "mbpp": (
        {"task_id": 2, "text": "Add.", "code": "c", "test_list": ["assert f(1) == 1"]},
        {
            "task_id": 2,
            "prompt": "Add.\nYour code should pass these tests:\n\nassert f(1) == 1",
            "tests": {"kind": "asserts", "setup": "", "asserts": ["assert f(1) == 1"]},
            "domain": "code",
        },
    ),
    "mbpp_plus": (
        {
            **{"task_id": 2, "prompt": "Add.", "code": "c", "test": "assert True"},
            **{"test_list": ["assert f(1) == 1"], "test_imports": ["import math"]},
        },
        {
            "task_id": 2,
            "prompt": "Add.\nYour code should pass these tests:\n\nassert f(1) == 1",
            "tests": {"kind": "script", "setup": "import math", "code": "assert True"},
            "domain": "code",
        },
    ),
}
CASES["humaneval"] = CASES["humaneval_plus"] = (
    {
        **{"task_id": "HumanEval/0", "prompt": "\ndef f(x):\n", "canonical_solution": "s"},
        **{"test": "def check(candidate): pass", "entry_point": "f"},
    },
    {
        "task_id": "HumanEval/0",
        "prompt": "Complete the following Python function. Answer with the whole function in one "
        "Python code block.\n\n```python\ndef f(x):\n```",
        "tests": {"kind": "check", "code": "def check(candidate): pass"},
        "entry_point": "f",
        "domain": "code",
    },
)


@pytest.mark.parametrize("name", CASES)
def test_a_row_of_the_source_becomes_a_problem(name):
    row, problem = CASES[name]
    assert BENCHMARKS[name].convert(row) == problem


def test_every_recipe_that_converts_rows_has_a_case():
    converting = {name for name, benchmark in BENCHMARKS.items() if benchmark.convert}
    assert converting == {*CASES, "gpqa_diamond"}


def test_the_right_option_of_gpqa_has_no_fixed_place():
    convert = BENCHMARKS["gpqa_diamond"].convert
    names = ("Correct Answer", *(f"Incorrect Answer {i}" for i in (1, 2, 3)))
    letters = []
    for number in range(200):
        row = {"Question": f"Which {number}?", **{name: f" {name}" for name in names}}
        problem = convert(row)
        assert problem == convert(row)
        letters.append(problem["answer"])
        lines = problem["prompt"].splitlines()
        assert f"{problem['answer']}. Correct Answer" in lines
        assert sorted(line[3:] for line in lines[2:]) == sorted(names)
    # Each letter in 50 of 200, plus or minus 4 standard deviations (6.1).
    assert all(25 < letters.count(letter) < 75 for letter in "ABCD")


def test_rows_in_the_projects_form_are_left_as_they_are(tmp_path):
    path = tmp_path / "local.jsonl"
    path.write_text(json.dumps({"prompt": "1+1?", "answer": "2"}) + "\n")
    settings = BENCHMARKS["gsm8k"].env_config(str(path))
    assert (settings["data"], settings["data_config"]) == (str(path), {})
    assert "\\boxed" in settings["prompt_template"]
    assert (settings["verifier"], settings["verifier_config"]) == ("math", {})


def test_a_recipe_says_how_its_answers_are_read():
    assert BENCHMARKS["word_problems"].env_config()["verifier_config"] == {"extract": "last"}


def test_a_local_copy_of_the_source_is_converted(tmp_path):
    path = tmp_path / "gsm8k.jsonl"
    path.write_text(json.dumps(CASES["gsm8k"][0]) + "\n")
    settings = BENCHMARKS["gsm8k"].env_config(str(path))
    assert settings["data"] == "prefix_rft_rllib.evaluation.benchmarks:converted_rows"
    assert list(converted_rows(**settings["data_config"])) == [CASES["gsm8k"][1]]


def test_a_row_that_is_none_of_the_benchmark_is_named_by_its_line(tmp_path):
    path = tmp_path / "gsm8k.jsonl"
    path.write_text(json.dumps(CASES["gsm8k"][0]) + '\n{"question": "?", "answer": "no mark"}\n')
    with pytest.raises(ValueError, match=r"gsm8k.jsonl:2: no row of 'gsm8k'.*columns: question"):
        list(BENCHMARKS["gsm8k"].converted(DataSource(str(path))))


def test_a_benchmark_is_named_by_recipe_by_recipe_and_file_or_by_a_source(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("")
    recipe = find_benchmark("math500")
    assert (recipe.name, recipe.source) == ("math500", None)
    given = find_benchmark(f"math500={path}")
    assert (given.name, given.source) == ("math500", str(path))
    own = find_benchmark(str(path))
    assert (own.name, own.recipe.source, own.recipe.verifier) == ("mine", str(path), "domain")
    assert find_benchmark("toy_arithmetic").recipe.source == "toy_arithmetic"


@pytest.mark.parametrize("text", ["math5000", "nothing=here", "math500=", ""])
def test_an_unknown_benchmark_lists_the_known_ones(text):
    with pytest.raises(ValueError, match=r"Unknown benchmark.*Known: aime2024, aime2025, amc"):
        find_benchmark(text)


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(benchmarks.__path__)])
def test_a_recipes_docstring_says_where_how_and_how_well(name):
    module = importlib.import_module(f"{benchmarks.__name__}.{name}")
    if name != "benchmark":
        for heading in ("Dataset:", "Protocol:", "Answer kind:", "Published", "Ours:"):
            assert heading in module.__doc__


def test_generated_word_problems_are_right_and_stay_the_same():
    first, *_ = rows = list(generate_rows(60))
    assert rows == list(generate_rows(60))
    assert len({row["prompt"] for row in rows}) == 60
    for row in rows:
        words = row["prompt"].replace(".", "").split()
        count = 0
        sign = 1
        for word, following in zip(words, [*words[1:], ""], strict=True):
            if word in ("loses", "gives", "sells"):
                sign = -1
            elif word in ("finds", "buys", "gets", "has"):
                sign = 1
            if following.isdigit():
                count += sign * int(following)
        assert row["answer"] == str(count), row
        assert row["prompt"].count("Then") == row["num_steps"]
    assert first["num_steps"] == 1
