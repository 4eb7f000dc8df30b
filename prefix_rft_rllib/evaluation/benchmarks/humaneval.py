"""HumanEval (arXiv 2107.03374) and HumanEval+ with more tests (arXiv 2305.01210).

Dataset: 164 problems each; `openai/openai_humaneval` and `evalplus/humanevalplus` (split test).
The tests of HumanEval+ import numpy.
Protocol: pass@1, no examples in the prompt.
Answer kind: the whole function, in a Python block; its tests run in the sandbox.
Published (arXiv 2507.01679, Qwen3-1.7B-Base, HumanEval+): RFT .649, SFT+RFT .447, Prefix-RFT .689.
Ours: none measured.
"""

from prefix_rft_rllib.evaluation.benchmarks.benchmark import Benchmark, Row, without

TASK = (
    "Complete the following Python function. Answer with the whole function in one Python code "
    "block.\n\n```python\n{code}\n```"
)


def convert(row: Row) -> Row:
    """Ask for the function, and take `check` as its tests."""
    return {
        **without(row, "prompt", "canonical_solution", "test"),
        "prompt": TASK.format(code=row["prompt"].strip("\n")),
        "tests": {"kind": "check", "code": row["test"]},
        "domain": "code",
    }


HUMANEVAL = Benchmark(
    name="humaneval",
    source="openai/openai_humaneval",
    source_config={"split": "test"},
    verifier="code",
    convert=convert,
)
HUMANEVAL_PLUS = Benchmark(
    name="humaneval_plus",
    source="evalplus/humanevalplus",
    source_config={"split": "test"},
    verifier="code",
    convert=convert,
)
