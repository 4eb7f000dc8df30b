"""The code verifier: kinds of tests, what passes between test and attempt, settings."""

import os
import signal
import threading
import time

import pytest

from prefix_rft_rllib.envs.verifiers.code_extraction import extract_code, helper_source
from prefix_rft_rllib.envs.verifiers.code_verifier import CodeVerifier

ADD = {"kind": "asserts", "asserts": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]}


@pytest.fixture(scope="module")
def verifier():
    with CodeVerifier(extract="whole", num_workers=2, timeout_s=5.0) as verifier:
        yield verifier


def asserts(*lines, setup=""):
    return {"kind": "asserts", "asserts": list(lines), "setup": setup}


def verdict(verifier, code, tests, entry_point=None, prompt=""):
    return str(verifier.verify(code, tests, entry_point, prompt).verdict)


def test_all_asserts_must_hold_and_the_first_failure_is_told(verifier):
    right = verifier.verify("def add(a, b): return a + b", ADD, "add")
    assert (right.verdict, right.num_passed, right.num_tests) == ("CORRECT", 2, 2)
    wrong = verifier.verify("def add(a, b):\n    print('hm')\n    return 3", ADD, "add")
    assert (wrong.verdict, wrong.test, wrong.got) == ("WRONG", "assert add(2, 2) == 4", "3")
    assert wrong.output == "hm\nhm\n"
    assert wrong.passed_fraction == 0.5


def test_check_functions_get_the_entry_point(verifier):
    tests = {"kind": "check", "code": "def check(candidate):\n    assert candidate([2, 1]) == 1\n"}
    assert verdict(verifier, "def low(x): return min(x)", tests, "low") == "CORRECT"
    wrong = verifier.verify("def low(x): return max(x)", tests, "low")
    assert (wrong.verdict, wrong.test) == ("WRONG", "assert candidate([2, 1]) == 1")
    method = "class Solution:\n    def low(self, x): return min(x)"
    assert verdict(verifier, method, tests, "Solution().low") == "CORRECT"


def test_scripts_run_their_setup_before_the_solution_too(verifier):
    code = "class Solution:\n    def roots(self, xs: List[int]): return [sqrt(x) for x in xs]"
    tests = {
        "kind": "script",
        "setup": "from typing import *\nfrom math import *\n",
        "code": "assert Solution().roots(xs=[4, 9]) == [2.0, 3.0]\nassert sqrt(4) == 2",
    }
    assert verdict(verifier, code, tests) == "CORRECT"


def test_programs_are_compared_token_by_token_in_fresh_processes(verifier):
    cases = [{"input": "1 2\n", "output": "3\n\n"}, {"input": "5 6", "output": " 11"}]
    tests = {"kind": "stdin_stdout", "cases": cases}
    code = "import os\nassert os.listdir() == []\nprint(sum(map(int, input().split())))\n"
    assert verdict(verifier, code, tests) == "CORRECT"
    assert verdict(verifier, code + "exit(0)", tests) == "CORRECT"
    failed = verifier.verify(code + "1 / 0", tests)
    assert failed.verdict == "WRONG"
    assert failed.reason.endswith("ZeroDivisionError: division by zero")
    one_wrong = verifier.verify("print(3)", tests)
    assert (one_wrong.verdict, one_wrong.num_passed) == ("WRONG", 1)
    assert one_wrong.test == "case 2: input '5 6'"


def test_threads_with_deep_recursion_work_in_programs(verifier):
    code = (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**26)\n"
        "def depth(n): return 0 if n == 0 else 1 + depth(n - 1)\n"
        "threading.Thread(target=lambda: print(depth(int(input())))).start()\n"
    )
    tests = {"kind": "stdin_stdout", "cases": [{"input": "50000", "output": "50000"}]}
    assert verdict(verifier, code, tests) == "CORRECT"


def test_objects_of_the_attempt_can_be_passed_back_but_not_compared(verifier):
    pair = "class Pair:\n    def __init__(s, a): s.a = a\ndef first(xs): return xs[0].a\n"
    assert verdict(verifier, pair, asserts("assert first([Pair(3), Pair(4)]) == 3")) == "CORRECT"
    assert verdict(verifier, pair, asserts("p = Pair(1)\np.a = 5\nassert p.a == 5")) == "CORRECT"
    always = "class A:\n    def __eq__(s, o): return True\n    __ne__ = __eq__\na = A()\n"
    for line in ("a == 1", "a != 1", "a", "not a", "[a] == [1]", "a in [1]", "{1: a} == {1: 1}"):
        result = verifier.verify(always, asserts(f"assert {line}"))
        assert result.verdict == "WRONG"
        assert "no plain data" in result.reason
    caught = "try:\n    ok = a == 1\nexcept Exception:\n    ok = True\nassert ok"
    assert verdict(verifier, always, asserts(caught)) == "WRONG"


def test_values_of_derived_types_count_as_their_base(verifier):
    code = "from collections import *\nimport enum\ndef f(s): return Counter(s)\n"
    code += (
        "P = namedtuple('P', 'a b')\ndef g(): return P(1, 2)\nclass E(enum.IntEnum):\n    A = 1\n"
    )
    lines = ["assert f('aab') == {'a': 2, 'b': 1}", "assert g() == (1, 2)", "assert E.A == 1"]
    assert verdict(verifier, code, asserts(*lines)) == "CORRECT"


def test_numpy_scalars_count_and_numpy_is_there(verifier):
    code = "import numpy as np\ndef f(x): return np.cumsum(x)[-1]"
    assert verdict(verifier, code, asserts("assert f([1, 2]) == 3")) == "CORRECT"


def test_arguments_changed_in_place_are_changed_for_the_test(verifier):
    code = "def f(xs, d):\n    xs.sort()\n    d['n'] = len(xs)\n"
    lines = "xs, d = [3, 1], {}\nf(xs, d)\nassert xs == [1, 3] and d == {'n': 2}"
    assert verdict(verifier, code, asserts(lines)) == "CORRECT"
    assert verdict(verifier, "def f(xs, d): pass", asserts(lines)) == "WRONG"


def test_exceptions_arrive_by_their_builtin_type(verifier):
    code = "class Bad(ValueError): pass\ndef f(): raise Bad('no')\ndef g(): raise SystemExit(0)"
    caught = (
        "try:\n    f()\n    ok = False\nexcept ValueError as e:\n    ok = 'no' in str(e)\nassert ok"
    )
    assert verdict(verifier, code, asserts(caught)) == "CORRECT"
    ended = verifier.verify(code, asserts("g()\nassert True"))
    assert (ended.verdict, ended.reason) == ("WRONG", "the attempt raised SystemExit: 0")


def test_functions_and_types_of_python_can_be_arguments(verifier):
    lines = ["assert f([1, 'a'], int) == [1]"]
    code = "def f(xs, t): return [x for x in xs if isinstance(x, t)]"
    assert verdict(verifier, code, asserts(*lines)) == "CORRECT"


def test_helpers_of_the_prompt_are_the_prompts_own(verifier):
    prompt = "```python\ndef helper(x):\n    return x + 1\n\ndef f(x):\n    '''Find a root.'''\n```"
    tests = {"kind": "check", "code": "def check(c):\n    assert helper(c(5)) == 0\n"}
    cheat = "def helper(x): return 0\ndef f(x): return 7"
    assert verdict(verifier, cheat, tests, "f", prompt) == "WRONG"
    assert verdict(verifier, "def f(x): return -1", tests, "f", prompt) == "CORRECT"
    assert helper_source(prompt, "f") == "def helper(x):\n    return x + 1"


def test_modules_named_in_tests_are_the_librarys_own(verifier):
    cheat = "class math:\n    floor = staticmethod(lambda x: 0)\ndef f(x): return 0"
    tests = asserts("assert f(1.5) == math.floor(1.5)")
    assert verdict(verifier, cheat, tests, "f") == "WRONG"


@pytest.mark.parametrize(
    "tests",
    [
        asserts("assert add(1, 2) =="),
        asserts("x = add(1, 2)"),
        asserts("assert add(1, 2) == 3", setup="import no_such_module"),
        asserts("assert add(object(), 2) == 3"),
    ],
)
def test_broken_tests_are_an_error_not_a_wrong_answer(verifier, tests):
    result = verifier.verify("def add(a, b): return a + b", tests)
    assert result.verdict == "ERROR"
    assert "test" in result.reason


@pytest.mark.parametrize("code", ["def f(:", "```", "  x\n    y", "(" * 300, "x = 1\n  y = 2"])
def test_code_that_does_not_compile_is_unparseable(verifier, code):
    assert verdict(verifier, code, ADD, "add") == "UNPARSEABLE"
    program = verifier.verify(
        code, {"kind": "stdin_stdout", "cases": [{"input": "", "output": ""}]}
    )
    assert program.verdict == "UNPARSEABLE"
    assert "Error: " in program.reason


def test_a_missing_name_and_a_crash_on_import_are_wrong(verifier):
    missing = verifier.verify("x = 1", ADD, "add")
    assert (missing.verdict, missing.reason) == ("WRONG", "NameError: name 'add' is not defined")
    crash = verifier.verify("1 / 0", ADD, "add")
    assert crash.reason == "the code raised ZeroDivisionError: division by zero"


def test_the_share_of_passed_tests_is_an_option():
    tests = {"kind": "check", "code": "def check(c):\n    assert c(1) == 1\n    assert c(2) == 3\n"}
    tests["code"] += "    assert c(3) == 3\n    assert c(0) == 1\n"
    with CodeVerifier(extract="whole", run_all=True, num_workers=1) as verifier:
        result = verifier.verify("def f(x): return x // (x > 0)", tests, "f")
        assert (result.verdict, result.num_passed, result.num_tests) == ("WRONG", 2, 4)
        assert result.test == "assert c(2) == 3"
        early = verifier.verify(
            "import os\ndef f(x): return x if x < 2 else os._exit(0)", tests, "f"
        )
        assert (early.num_passed, early.num_tests) == (1, 4)


def test_the_limit_is_kept_and_told(verifier):
    with CodeVerifier(extract="whole", num_workers=1, timeout_s=0.5) as quick:
        result = quick.verify("def add(a, b):\n    while True: pass", ADD, "add")
    assert (result.verdict, result.reason) == ("TIMEOUT", "not done after 0.5 s")
    assert result.seconds < 2.0


def test_verdicts_do_not_mix_under_many_threads(verifier):
    rows = [
        {"response": f"def f(x): return x + {i % 3}", "tests": asserts("assert f(1) == 2")}
        for i in range(60)
    ]
    seen = [None] * len(rows)

    def grade(i):
        seen[i] = str(verifier.verify(**rows[i]).verdict)

    threads = [threading.Thread(target=grade, args=(i,)) for i in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["CORRECT" if i % 3 == 1 else "WRONG" for i in range(len(rows))]


DOCSTRING = 'def f():\n    """\n    ```\n    1\n    ```\n    """\n'
TEXT = "Plan:\n```\nnot code\n```\nthen\n```python\nx = 1\n```\n```text\n1\n```\n```\nlast\n```"


@pytest.mark.parametrize(
    ("response", "extract", "code"),
    [
        (TEXT, "block", "x = 1\n"),
        ("```\na\n```\n```\nb\n```", "block", "b\n"),
        ("```python\nx = 1", "block", "x = 1"),
        ("  ```py\n  x\n    ```  ", "block", "x\n"),
        ("````python\nx = '''\n```\n'''\n````", "block", "x = '''\n```\n'''\n"),
        ("x = 1", "block", None),
        ("```python\n\n```", "block_or_whole", None),
        ("x = 1", "block_or_whole", "x = 1"),
        (TEXT, "whole", TEXT),
        ("  \n", "whole", None),
        ("```text\n1\n```", "block", None),
        ('```python\ndef f():\n    """\n    ```\n    1\n    ```\n    """\n```', "block", DOCSTRING),
        ("Not ```x = 1``` but\n```y = 2```\n```python\nz = 3\n```", "block", "z = 3\n"),
        ("~~~python\n```\nx\n```\n~~~", "block", "```\nx\n```\n"),
        ("\ufeff```python\r\nx = 1\r\n```\r\n", "block", "x = 1\r\n"),
        ("\ufeffx = 1", "whole", "x = 1"),
        ("```python\nx\n    ```\n```\ny\n```\n```python\nz\n    ```\n", "block", "z\n"),
    ],
)
def test_the_code_is_the_last_python_block(response, extract, code):
    assert extract_code(response, extract) == code


def test_a_response_without_a_block_is_unparseable():
    with CodeVerifier(num_workers=1) as verifier:
        assert verdict(verifier, "def add(a, b): return a + b", ADD, "add") == "UNPARSEABLE"
        assert verdict(verifier, "```python\ndef add(a, b): return a + b\n```", ADD) == "CORRECT"


@pytest.mark.parametrize(
    ("tests", "entry_point", "message"),
    [
        ({"kind": "pytest"}, None, "`tests.kind` must be one of"),
        ([], None, "`tests` must be a dict"),
        ({"kind": "asserts", "asserts": []}, None, "`tests.asserts` must be a list with something"),
        ({"kind": "asserts", "asserts": [1]}, None, "`tests.asserts` must hold texts"),
        ({"kind": "check", "code": "x"}, None, "`entry_point` must be an expression"),
        ({"kind": "check", "code": "x"}, "a b", "`entry_point` must be an expression"),
        ({"kind": "script"}, None, "`tests.code` must be a text"),
        ({"kind": "stdin_stdout", "cases": [{"input": "1"}]}, None, "`tests.cases` must hold"),
    ],
)
def test_malformed_tests_are_a_clear_error(verifier, tests, entry_point, message):
    with pytest.raises(ValueError, match=message):
        verifier.verify("x = 1", tests, entry_point)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extract": "last"}, "`extract` must be one of"),
        ({"isolation": "docker"}, "`isolation` must be one of"),
        ({"timeout_s": 0}, "`timeout_s` must be a number of at least 0.05"),
        ({"memory_mb": 1.5}, "`memory_mb` must be a whole number"),
        ({"num_workers": 0}, "`num_workers` must be a whole number of at least 1"),
        ({"first_user_id": 0}, "`first_user_id` must be a whole number of at least 1000"),
        ({"packages": "numpy"}, "`packages` must be a list"),
        ({"timeout": 3}, r"unknown setting\(s\) \['timeout'\]"),
    ],
)
def test_a_wrong_setting_is_a_clear_error(settings, message):
    with pytest.raises(ValueError, match=message):
        CodeVerifier(**settings)


def test_no_exit_code_of_an_attempt_looks_like_a_failure_of_the_sandbox(verifier):
    for code in (1, 119, 127, 255):
        result = verifier.verify(f"import os\ndef add(a, b): os._exit({code})", ADD, "add")
        assert result.verdict == "WRONG"
        assert result.reason.endswith(f"exit code {code}")
    tests = {"kind": "stdin_stdout", "cases": [{"input": "", "output": "1"}]}
    assert verdict(verifier, "print(1); exit(119)", tests) == "WRONG"


def test_an_exception_cannot_end_a_loop_of_the_tests(verifier):
    cases = asserts("assert all(a == b for a, b in zip(map(f, [1, 2]), [1, 4]))")
    assert verdict(verifier, "def f(x): return x * x", cases) == "CORRECT"
    assert verdict(verifier, "def f(x): raise StopIteration", cases) == "WRONG"


def test_reasons_can_be_written_to_any_file(verifier):
    result = verifier.verify("def add(a, b): raise ValueError('\\ud800')", ADD, "add")
    assert result.reason.encode() == b"ValueError: \\ud800"


@pytest.mark.skipif(os.getuid() != 0, reason="only root takes user ids")
def test_a_sandbox_that_cannot_be_set_up_is_an_error_not_a_wrong_answer():
    with pytest.raises(RuntimeError, match="the code sandbox does not work here"):
        CodeVerifier(first_user_id=2**32, num_workers=1)


def test_required_isolation_refuses_to_run_without():
    with pytest.raises(RuntimeError, match="require_isolation=True"):
        CodeVerifier(isolation="none", require_isolation=True, num_workers=1)


def test_missing_isolation_is_logged_once_and_stands_in_every_result(caplog):
    with caplog.at_level("WARNING"), CodeVerifier(isolation="none", num_workers=1) as verifier:
        results = [verifier.verify("```\nx = 1\n```", ADD, "add") for _ in range(2)]
    assert [result.isolation for result in results] == ["none", "none"]
    assert sum("without isolation" in record.message for record in caplog.records) == 1


def test_equal_configurations_share_one_pool():
    one = CodeVerifier.shared(num_workers=1, timeout_s=5.0)
    assert CodeVerifier.shared(timeout_s=5.0, num_workers=1) is one
    one.close()


def test_a_killed_nursery_is_replaced(verifier):
    with CodeVerifier(extract="whole", num_workers=1) as own:
        os.kill(own._sandbox._pool._nursery.process_id, signal.SIGKILL)
        time.sleep(0.2)
        verdicts = [verdict(own, "def add(a, b): return a + b", ADD, "add") for _ in range(3)]
    assert verdicts == ["CORRECT"] * 3


@pytest.mark.slow
def test_ray_tasks_can_grade_code():
    import ray

    def grade(code):
        with CodeVerifier(extract="whole", num_workers=1) as own:
            return str(own.verify(code, ADD, "add").verdict)

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        task = ray.remote(grade)
        codes = ["def add(a, b): return a + b", "def add(a, b): return a - b"]
        assert ray.get([task.remote(code) for code in codes]) == ["CORRECT", "WRONG"]
    finally:
        ray.shutdown()
