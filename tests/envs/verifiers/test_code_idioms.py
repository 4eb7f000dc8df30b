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
