r"""MATH-500: 500 problems of the test split of MATH (Hendrycks et al., 2021).

Dataset: `HuggingFaceH4/MATH-500` (split test), with `subject` and `level`.
Protocol: pass@1.
Answer kind: LaTeX, in `\boxed{}`.
Published: see docs/evaluation.md for the mean over six mathematics benchmarks.
Ours: none measured.
"""

from prefix_rft_rllib.evaluation.benchmarks.benchmark import BOXED, Benchmark

MATH_500 = Benchmark(
    name="math500",
    source="HuggingFaceH4/MATH-500",
    source_config={"split": "test"},
    verifier="math",
    prompt_template=BOXED,
)
