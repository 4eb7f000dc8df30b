r"""MMLU-Pro: questions of 14 disciplines with up to ten options (arXiv 2406.01574).

Dataset: 12,032 questions; `TIGER-Lab/MMLU-Pro` (split test), with `category`.
Protocol: pass@1, no examples in the prompt.
Answer kind: a letter, in `\boxed{}`.
Published: no figure is copied here. Ours: none measured.
"""

from prefix_rft_rllib.evaluation.benchmarks.benchmark import (
    LETTER,
    Benchmark,
    Row,
    with_options,
    without,
)


def convert(row: Row) -> Row:
    """Write the options into the prompt."""
    return {
        **without(row, "question", "options", "answer_index", "cot_content"),
        "prompt": with_options(row["question"], list(row["options"])),
        "answer": row["answer"],
        "domain": "choice",
    }


MMLU_PRO = Benchmark(
    name="mmlu_pro",
    source="TIGER-Lab/MMLU-Pro",
    source_config={"split": "test"},
    verifier="choice",
    prompt_template=LETTER,
    convert=convert,
)
