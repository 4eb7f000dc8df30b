r"""AIME 2024 and AIME 2025: American Invitational Mathematics Examination.

Dataset: 30 problems each; `HuggingFaceH4/aime_2024` (split train), `math-ai/aime25` (split test).
Protocol: avg@32, as in the Prefix-RFT paper (arXiv 2507.01679).
Answer kind: a whole number from 0 to 999, in `\boxed{}`.
Published: no figure of its own is copied here; the mean over six mathematics benchmarks of which
these are two is in docs/evaluation.md.
Ours: none measured.
"""

from prefix_rft_rllib.evaluation.benchmarks.benchmark import BOXED, Benchmark

AIME_2024 = Benchmark(
    name="aime2024",
    source="HuggingFaceH4/aime_2024",
    source_config={"split": "train"},
    verifier="math",
    prompt_template=BOXED,
    num_samples=32,
)
AIME_2025 = Benchmark(
    name="aime2025",
    source="math-ai/aime25",
    source_config={"split": "test"},
    verifier="math",
    prompt_template=BOXED,
    num_samples=32,
)
