"""MBPP (arXiv 2108.07732) and MBPP+ with more tests (arXiv 2305.01210).

Dataset: 500 problems of `google-research-datasets/mbpp`, configuration `full` (split test); 378 of
`evalplus/mbppplus` (split test), whose tests import numpy.
Protocol: pass@1, no examples in the prompt; the prompt shows the three asserts of MBPP.
Answer kind: a function, in a Python block; its tests run in the sandbox.
Published (arXiv 2507.01679, Qwen3-1.7B-Base, MBPP+): RFT .613, SFT+RFT .500, Prefix-RFT .640.
Ours: none measured.
"""

from prefix_rft_rllib.evaluation.benchmarks.benchmark import Benchmark, Row, without

TASK = "{text}\nYour code should pass these tests:\n\n{asserts}"


def convert(row: Row) -> Row:
    """Ask with the asserts, which are the tests too."""
    asserts = list(row["test_list"])
    setup = row.get("test_setup_code") or ""
    return {
        **without(row, "text", "code", "test_list", "test_setup_code", "challenge_test_list"),
        "prompt": TASK.format(text=row["text"], asserts="\n".join(asserts)),
        "tests": {"kind": "asserts", "setup": setup, "asserts": asserts},
        "domain": "code",
    }


def convert_plus(row: Row) -> Row:
    """Ask with the asserts of MBPP; a script holds the tests."""
    asserts, imports = list(row["test_list"]), list(row["test_imports"])
    return {
        **without(row, "prompt", "code", "test_list", "test_imports", "test", "source_file"),
        "prompt": TASK.format(text=row["prompt"], asserts="\n".join(asserts)),
        "tests": {"kind": "script", "setup": "\n".join(imports), "code": row["test"]},
        "domain": "code",
    }


MBPP = Benchmark(
    name="mbpp",
    source="google-research-datasets/mbpp",
    source_config={"name": "full", "split": "test"},
    verifier="code",
    convert=convert,
)
MBPP_PLUS = Benchmark(
    name="mbpp_plus",
    source="evalplus/mbppplus",
    source_config={"split": "test"},
    verifier="code",
    convert=convert_plus,
)
