r"""OlympiadBench: open-ended mathematics, in English, text only (arXiv 2402.14008).

Dataset: `Hothan/OlympiadBench`, configuration `OE_TO_maths_en_COMP` (split train), with
`subfield`, `answer_type` and `is_multiple_answer`.
Protocol: pass@1.
Answer kind: LaTeX, in `\boxed{}`; several answers stand in one box, separated by commas.
Published: see docs/evaluation.md for the mean over six mathematics benchmarks.
Ours: none measured.
"""

from prefix_rft_rllib.evaluation.benchmarks.benchmark import BOXED, Benchmark, Row, without


def convert(row: Row) -> Row:
    """Take the final answers as one gold answer."""
    columns = without(row, "question", "solution", "final_answer")
    answer = ", ".join(map(str, row["final_answer"]))
    return {**columns, "prompt": row["question"], "answer": answer, "domain": "math"}


OLYMPIADBENCH = Benchmark(
    name="olympiadbench",
    source="Hothan/OlympiadBench",
    source_config={"name": "OE_TO_maths_en_COMP", "split": "train"},
    verifier="math",
    prompt_template=BOXED,
    convert=convert,
)
