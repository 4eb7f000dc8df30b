r"""AMC: American Mathematics Competitions of 2022 and 2023, without their options.

Dataset: 83 problems; `AI-MO/aimo-validation-amc` (split train). Its answers are numbers such as
142.0.
Protocol: avg@32, as in the Prefix-RFT paper (arXiv 2507.01679).
Answer kind: a number, in `\boxed{}`.
Published: see docs/evaluation.md for the mean over six mathematics benchmarks.
Ours: none measured.
"""

from prefix_rft_rllib.evaluation.benchmarks.benchmark import BOXED, Benchmark, Row, without


def convert(row: Row) -> Row:
    """Write the answer as text."""
    problem, answer = row["problem"], str(row["answer"])
    return {**without(row, "problem"), "prompt": problem, "answer": answer, "domain": "math"}


AMC = Benchmark(
    name="amc",
    source="AI-MO/aimo-validation-amc",
    source_config={"split": "train"},
    verifier="math",
    prompt_template=BOXED,
    num_samples=32,
    convert=convert,
)
