"""Honest programs pass, whatever customs they follow."""

import pytest

from prefix_rft_rllib.envs.verifiers.code_verifier import CodeVerifier


@pytest.fixture(scope="module")
def verifier():
    with CodeVerifier(extract="whole", num_workers=2, timeout_s=5.0) as verifier:
        yield verifier


def asserts(*lines):
    return {"kind": "asserts", "asserts": list(lines)}


def verdict(verifier, code, tests, entry_point=None):
    return str(verifier.verify(code, tests, entry_point).verdict)


def test_the_limit_of_output_is_none_of_code_and_input():
    long = "x = '" + "a" * 100_000 + "'\n"
    add = asserts("assert add(1, 2) == 3")
    tests = {"kind": "stdin_stdout", "cases": [{"input": "1 " * 50_000, "output": "50000"}]}
    with CodeVerifier(extract="whole", output_kb=1, num_workers=1) as small:
        assert verdict(small, long + "def add(a, b): return a + b", add, "add") == "CORRECT"
        given = asserts("xs = [0] * 50000\nassert f(xs) == 50000")
        assert verdict(small, "def f(x): return len(x)", given) == "CORRECT"
        assert verdict(small, long + "print(len(input().split()))", tests) == "CORRECT"
        assert verdict(small, "def add(a, b): return [3] * 5000", add, "add") == "WRONG"


FUNCTIONS = {
    "postponed annotations": (
        "from __future__ import annotations\nfrom dataclasses import dataclass, field, asdict\n"
        "@dataclass(order=True)\nclass P:\n    a: int\n"
        "    b: list[int] = field(default_factory=list)\n"
        "def f(x): return asdict(P(x, [1]))",
        "assert f(2) == {'a': 2, 'b': [1]}",
    ),
    "annotations are values": (
        "def g(a: int, b: str) -> float: ...\n"
        "def f(x): return [t.__name__ for t in g.__annotations__.values()]",
        "assert f(1) == ['int', 'str', 'float']",
    ),
    "single dispatch": (
        "from functools import singledispatch\n@singledispatch\ndef f(x): return 'other'\n"
        "@f.register\ndef _(x: int): return 'int'",
        "assert f(2) == 'int' and f([]) == 'other'",
    ),
    "deep recursion through a cache": (
        "import sys\nfrom functools import lru_cache\nsys.setrecursionlimit(10**6)\n"
        "@lru_cache(None)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)",
        "assert f(10000) == 10000",
    ),
    "a larger stack": (
        "import resource, sys\nsys.setrecursionlimit(10**6)\n"
        "resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY,) * 2)\n"
        "def f(n): return 0 if n == 0 else 1 + f(n - 1)",
        "assert f(50000) == 50000",
    ),
    "members of text enumerations": (
        "import enum\nclass E(str, enum.Enum):\n    A = 'x'\ndef f(x): return [E.A]",
        "assert f(1) == ['x']",
    ),
    "windows lines and tabs": ("def f(x):\r\n\tif x:\r\n\t\treturn x\r\n", "assert f(1) == 1"),
    "temporary files": (
        "import tempfile\ndef f(x):\n    with tempfile.TemporaryFile() as g:\n"
        "        g.write(x)\n        g.seek(0)\n        return g.read()",
        "assert f(b'a') == b'a'",
    ),
    "thread pools": (
        "from concurrent.futures import ThreadPoolExecutor\ndef f(n):\n"
        "    with ThreadPoolExecutor() as e: return list(e.map(lambda i: i * i, range(n)))",
        "assert f(3) == [0, 1, 4]",
    ),
    "a command line": (
        "import sys\nN = int(sys.argv[1]) if len(sys.argv) > 1 else 10\ndef f(x): return N",
        "assert f(1) == 10",
    ),
    "a main block": (
        "def f(x): return x\nif __name__ == '__main__':\n    print(f(int(input())))",
        "assert f(1) == 1",
    ),
    "changes in place": (
        "def f(xs): xs[:] = sorted(set(xs))",
        "xs = [3, 1, 3]\nassert f(xs) is None\nassert xs == [1, 3]",
    ),
    "a class with state": (
        "class Stack:\n    def __init__(s): s.x = []\n    def push(s, v): s.x.append(v)\n"
        "    def pop(s): return s.x.pop()",
        "s = Stack()\ns.push(1)\ns.push((2, {3: None}))\nassert s.pop() == (2, {3: None})",
    ),
    "nearly equal numbers": (
        "def f(x): return x / 3",
        "import math\nassert math.isclose(f(1), 1 / 3) and abs(f(2) - 0.6667) < 1e-3",
    ),
    "large integers and other alphabets": (
        "def f(n, s): return [7**n, 'é😀' + s]",
        "assert f(5000, 'ü') == [7**5000, 'é😀ü']",
    ),
    "generators gone through once": (
        "def f(n):\n    for i in range(n): yield [i]",
        "assert list(f(2)) == [[0], [1]] and sorted(f(1)) == [[0]] and next(iter(f(1))) == [0]",
    ),
    "views, ranges and deques": (
        "from collections import deque\ndef f(d): return d.keys()\n"
        "def g(n): return range(n)\ndef h(n): return deque(range(n))",
        "assert set(f({1: 2})) == {1} and tuple(g(2)) == (0, 1) and list(h(2)) == [0, 1]",
    ),
    "objects that stay the same": (
        "class Node:\n    def __init__(s): s.next = None\ndef f(node): return node.next",
        "a, b = Node(), Node()\na.next = b\nassert f(a) is b and f(b) is None and f(a) is not a",
    ),
    "a name that a module has too": ("def copy(x): return x + 1", "assert copy(1) == 2"),
    "event loops": (
        "import asyncio\nasync def g(x):\n    await asyncio.sleep(0)\n    return x\n"
        "def f(x): return asyncio.run(g(x))",
        "assert f(1) == 1",
    ),
}

_BUFFERED = "import io, sys\nbuffer = io.StringIO()\nsys.stdout = buffer\nprint(int(input()) + 1)\n"
PROGRAMS = {
    "lines until the end": (
        "t = 1\nwhile True:\n    try: t += int(input())\n    except EOFError: break\n"
        "print(t, end='')"
    ),
    "the input's size": (
        "import io, os\ninput = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\n"
        "print(int(input()) + 1)"
    ),
    "bytes": "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())) + 1)",
    "descriptor 0": "print(int(open(0).read()) + 1)",
    "memory map": ("import mmap\nprint(int(mmap.mmap(0, 0, prot=mmap.PROT_READ).readline()) + 1)"),
    "reading twice": (
        "import sys\nsys.stdin.read()\nsys.stdin.seek(0)\nprint(int(sys.stdin.read()) + 1)"
    ),
    "output at exit": (
        f"{_BUFFERED}import atexit\n"
        "atexit.register(lambda: sys.__stdout__.write(buffer.getvalue()))"
    ),
    "output to the first stream": f"{_BUFFERED}sys.__stdout__.write(buffer.getvalue())",
    "an executor left open": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "print(ThreadPoolExecutor(2).submit(lambda: int(input()) + 1).result())"
    ),
    "sys.exit": "import sys\nprint(int(input()) + 1)\nsys.exit()",
    "quit": "print(int(input()) + 1)\nquit()",
    "its own name and module": (
        "import __main__, os, pickle\nclass A: pass\n"
        "assert type(pickle.loads(pickle.dumps(A()))) is A\n"
        "assert __main__.A is A and os.path.basename(__file__).endswith('.py')\n"
        "print(__builtins__.int(input()) + 1)"
    ),
    "NumPy": (
        "import sys\nimport numpy as np\n"
        "print(np.array(sys.stdin.read().split(), dtype=np.int64).sum() + 1)"
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_common_customs_pass(verifier, name):
    code, line = FUNCTIONS[name]
    result = verifier.verify(code, asserts(line), "f")
    assert result.verdict == "CORRECT", result


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_of_common_customs_pass(verifier, name):
    tests = {"kind": "stdin_stdout", "cases": [{"input": "3\n", "output": "4\n"}]}
    result = verifier.verify(PROGRAMS[name], tests)
    assert result.verdict == "CORRECT", result


@pytest.mark.parametrize(
    "test",
    [
        "import sys\n    print('x' * 10_000, flush=True)\n    print('x', file=sys.stderr)",
        "import numpy as np\n    assert np.allclose(candidate([1.0]), np.array([2.0]))",
    ],
    ids=["print", "use an allowed package"],
)
def test_tests_may(verifier, test):
    code = f"def check(candidate):\n    {test}\n    assert candidate([3.0]) == [4.0]"
    tests = {"kind": "check", "code": code}
    assert verdict(verifier, "def f(xs): return [x + 1 for x in xs]", tests, "f") == "CORRECT"
    assert verdict(verifier, "def f(xs): return xs", tests, "f") == "WRONG"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("r = f(3)\nassert list(r) == [0]\nassert list(r) == [0]", "gone through once"),
        ("assert len(f(3)) == 1", "has no len"),
        ("assert 0 in f(3)", "no plain data"),
        ("assert f(3)[0] == 0", "no plain data"),
        ("assert f(3) == [0]", "no plain data"),
        ("assert f(3)", "no plain data"),
        ("assert len(list(f(10**6))) == 0", "items are too large"),
    ],
)
def test_what_is_gone_through_cannot_change_its_answers(verifier, line, reason):
    code = "class A:\n    def __init__(s, n): s.n = n\n    def __len__(s): return 1\n"
    code += (
        "    def __iter__(s): return iter([0]) if s.n < 9 else (b'x' * s.n for _ in range(99))\n"
    )
    code += "    def __eq__(s, o): return True\n    def __contains__(s, x): return True\n"
    code += "    def __getitem__(s, i): return 0\ndef f(n): return A(n)"
    result = verifier.verify(code, asserts(line), "f")
    assert result.verdict == "WRONG"
    assert reason in result.reason


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ({"kind": "check", "code": "def test(c):\n    assert c(1)"}, "define no `check`"),
        ({"kind": "script", "code": "def test():\n    assert f(1)"}, "without a call"),
        ({"kind": "script", "code": "import pandas\nassert f(1)"}, "import 'pandas'"),
        (
            {
                "kind": "script",
                "code": "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
                "        self.assertEqual(f(1), 1)\nunittest.main(exit=False)",
            },
            "TestCase",
        ),
    ],
)
def test_tests_that_nothing_would_fail_are_an_error(verifier, tests, reason):
    result = verifier.verify("def f(x): return x", tests, "f")
    assert result.verdict == "ERROR"
    assert reason in result.reason


def test_tests_keep_their_builtins_whatever_they_mention(verifier):
    cheat = "__builtins__ = {'abs': lambda x: 0}\ndef f(x): return 0"
    tests = asserts("assert __builtins__ and abs(f(5) - 5) < 1")
    assert verdict(verifier, cheat, tests, "f") == "WRONG"
