r"""Minerva: undergraduate problems of the sciences (OCWCourses; Lewkowycz et al., 2022).

Dataset: 272 problems; `math-ai/minervamath` (split test).
Protocol: pass@1.
Answer kind: a number or LaTeX, in `\boxed{}`.
Published: see docs/evaluation.md for the mean over six mathematics benchmarks.
Ours: none measured.
"""

from prefix_rft_rllib.evaluation.benchmarks.benchmark import BOXED, Benchmark

MINERVA = Benchmark(
    name="minerva",
    source="math-ai/minervamath",
    source_config={"split": "test"},
    verifier="math",
    prompt_template=BOXED,
)
