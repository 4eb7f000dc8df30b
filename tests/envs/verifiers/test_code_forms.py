"""Code as models write it: fences, marks around them, names without imports, huge integers."""

import time

import pytest

from prefix_rft_rllib.envs.verifiers.code_extraction import extract_code
from prefix_rft_rllib.envs.verifiers.code_verifier import CodeVerifier

CODE = "def f(x):\n    return x + 1"
FENCED = f"```python\n{CODE}\n```"
HUGE = "1" + 5000 * "0"
TESTS = {"kind": "asserts", "asserts": ["assert f(1) == 2"]}


@pytest.fixture(scope="module")
def verifier():
    with CodeVerifier(num_workers=2, timeout_s=5.0) as verifier:
        yield verifier


def prefixed(prefix, text, first=None):
    """A text with something in front of its lines, maybe something else in front of the first."""
    lines = [f"{prefix}{line}" for line in text.split("\n")]
    lines[0] = f"{prefix if first is None else first}{text.split(chr(10), 1)[0]}"
    return "\n".join(lines)


@pytest.mark.parametrize(
    "response",
    [
        f"1. First:\n\n{prefixed('   ', FENCED)}\n\n2. Done.",
        f"* So:\n{prefixed('  ', FENCED)}",
        f"10. So:\n{prefixed('    ', FENCED)}\n    More.",
        f"- a\n    - b\n{prefixed('        ', FENCED)}",
        f"- a\n{prefixed(chr(9), FENCED)}",
        prefixed("   ", FENCED, "1. "),
        prefixed("  ", FENCED, "- "),
        prefixed("> ", FENCED),
        f"   ```python\n{CODE}\n   ```",
        f"```python\n{prefixed('    ', CODE)}\n```",
        f"```python\n    # A comment.\n\n{prefixed('    ', CODE)}\n```",
        f"\ufeff{FENCED}",
        f"```python\n\ufeff{CODE}\n```",
        *[
            f"{FENCED}{mark}"
            for mark in (
                "<|im_end|>",
                "</s>",
                "<|eot_id|>",
                "<end_of_turn>",
                "<|end|>",
                "<|endoftext|>",
                "<eos>",
                "<\uff5cend\u2581of\u2581sentence\uff5c>",
                "\n<|im_end|>\n<|endoftext|>\n",
                " <|im_end|>",
                "<|im_end|>\n<|im_start|>user\nThanks!",
            )
        ],
        f"```python\n{CODE}<|im_end|>",
        f"```python\n{CODE}\n</s>",
        f"```python\n{CODE}```",
        f"```python\n{CODE}```<|eot_id|>",
        f"~~~python\n{CODE}\n~~~",
        f"````python\n{CODE}\n````",
        f"````python\n{CODE}\n# ```\n````",
        f"```py\n{CODE}\n```",
        f"```python3\n{CODE}\n```",
        f"```Python\n{CODE}\n```",
        f"```PYTHON3\n{CODE}\n```",
        f"``` python\n{CODE}\n```",
        f"```python3.11\n{CODE}\n```",
        f"```{{.python}}\n{CODE}\n```",
        f"```{{python}}\n{CODE}\n```",
        f"```python:solution.py\n{CODE}\n```",
        f"```python title='f.py'\n{CODE}\n```",
        f"```\n{CODE}\n```",
        f"{FENCED}\n\nOutput:\n```\n2\n```",
        f"```bash\nls\n```\n{FENCED}\n```text\nDone\n```",
        FENCED.replace("\n", "\r\n"),
        f"<think>\n```python\ndef f(x): return 0\n```\n</think>\n{FENCED}",
        f"<think>\n```python\ndef f(x): return 0\n</think>\n{FENCED}",
        f"<think>\n```python\ndef f(x): return 0\n```\n</think>\n```\n{CODE}\n```",
        f"<think>Hm.</think>\n<answer>\n{FENCED}\n</answer>",
        "```python\nX = '</think>'\n" + CODE + "\n```",
    ],
)
def test_the_code_is_found_however_it_is_fenced(verifier, response):
    result = verifier.verify(response, TESTS)
    assert (result.verdict, result.reason) == ("CORRECT", "")


@pytest.mark.parametrize(
    "response",
    [
        FENCED.replace("+ 1", "+ 2"),
        f"{FENCED}\n```python\ndef f(x): return 0\n```<|im_end|>",
        f"<think>\n{FENCED}\n</think>\n```python\ndef f(x): return 0\n```",
        f"```pytorch\n{CODE}\n```",
        f"[PYTHON]\n{CODE}\n[/PYTHON]",
        "```python\n>>> def f(x):\n...     return x + 1\n```",
        "```python\n    def f(x):\n  return x + 1\n```",
        CODE,
    ],
)
def test_what_is_no_right_block_earns_nothing(verifier, response):
    assert verifier.verify(response, TESTS).verdict != "CORRECT"


def test_lines_keep_what_is_deeper_than_the_first_statement():
    block = "  ```py\n  def f():\n      '''\n a\n     b\n      '''\n  ```"
    assert extract_code(block, "block") == "def f():\n    '''\na\n   b\n    '''\n"


def test_end_signs_go_from_the_end_only():
    text = "x = '<|im_end|>'\n"
    assert extract_code(f"{text}</s><|im_end|>\n\n", "whole") == text.rstrip()


def test_hostile_text_is_searched_in_linear_time():
    hostile = ["- " * 300_000, "> " * 300_000, "\n" * 600_000, "<|a|> " * 100_000]
    hostile += [
        "```python\n" * 3000,
        " " * 600_000 + "x",
        "</think> " * 60_000,
        "```py\n </s>" * 3000,
    ]
    start = time.process_time()
    for text in hostile:
        extract_code(text, "block_or_whole")
    assert time.process_time() - start < 10.0


def printed(expected, given=""):
    return {"kind": "stdin_stdout", "cases": [{"input": given, "output": expected}]}


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        ("print(10**5000)", printed(HUGE)),
        ("print(int(input()) + 1)", printed(HUGE[:-1] + "1", HUGE)),
        (f"x = {HUGE}\nprint(x % 7)", printed(str(10**5000 % 7))),
        ("print(1 / 3)", printed("0.333333")),
        ("print(int(input()))", printed("3", "\ufeff3")),
        (
            "def f(n): return 10**n",
            {"kind": "asserts", "asserts": [f"assert f(5000) == {HUGE}"]},
        ),
        (
            "def f(n): return str(10**n)",
            {"kind": "asserts", "asserts": ["assert f(5000) == str(10**5000)"]},
        ),
        ("def f(n): return int(n)", {"kind": "asserts", "asserts": ["assert f('1' * 5000) > 0"]}),
        ("def f(x): return x + 1", {"kind": "asserts", "asserts": ["\ufeffassert f(1) == 2"]}),
    ],
)
def test_huge_integers_reals_and_marked_files(verifier, code, tests):
    result = verifier.verify(f"```python\n{code}\n```", tests)
    assert (result.verdict, result.reason) == ("CORRECT", "")


def test_a_huge_integer_is_compared_and_not_shown(verifier):
    tests = {"kind": "asserts", "asserts": ["assert f(1) == 2, f(1)"]}
    result = verifier.verify("```python\ndef f(x): return 1 << 4_000_000\n```", tests)
    assert result.verdict in ("WRONG", "TIMEOUT")
    result = verifier.verify("```python\ndef f(x): return 1 << 4_000_000\n```", TESTS)
    assert (result.verdict, result.got) == ("WRONG", "")
    assert result.seconds < 3.0


USUAL = (
    "def f(n: List[int]) -> int: return Counter(n).most_common(1)[0][0] + int(math.inf > sqrt(1))"
)


def test_usual_names_need_no_import_unless_the_setting_says_so(verifier):
    tests = {"kind": "asserts", "asserts": ["assert f([1, 1, 3]) == 2"]}
    code = f"```python\n{USUAL}\n```"
    assert verifier.verify(code, tests).verdict == "CORRECT"
    with CodeVerifier(num_workers=1, usual_imports=False) as strict:
        result = strict.verify(code, tests)
    assert (result.verdict, result.reason) == (
        "WRONG",
        "the code raised NameError: name 'List' is not defined",
    )


def test_a_usual_name_is_no_answer_and_gives_way_to_the_codes_own(verifier):
    gcd = {"kind": "asserts", "asserts": ["assert gcd(4, 6) == 2"]}
    assert verifier.verify("```python\nx = 1\n```", gcd, "gcd").verdict == "WRONG"
    own = {"kind": "asserts", "asserts": ["assert f(4) == 5"]}
    code = "def sqrt(x): return 5\ndef f(x): return sqrt(x)"
    assert verifier.verify(f"```python\n{code}\n```", own).verdict == "CORRECT"


@pytest.mark.parametrize("value", [-1e-6, 1.0, float("nan"), float("inf"), "1e-6", True, None])
def test_a_wrong_tolerance_is_a_clear_error(value):
    with pytest.raises(
        ValueError, match=r"`tolerance` must be in \[0, 1\), got .*\. 0 compares exactly"
    ):
        CodeVerifier(tolerance=value)


def test_the_tolerance_is_a_setting():
    with CodeVerifier(num_workers=1, extract="whole", tolerance=0.01) as rough:
        assert rough.verify("print(1 / 3)", printed("0.33")).verdict == "CORRECT"
        assert rough.verify("print(1 / 3)", printed("0.3")).verdict == "WRONG"
