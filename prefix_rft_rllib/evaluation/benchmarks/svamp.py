r"""SVAMP: elementary word problems, varied so that surface cues mislead (arXiv 2103.07191).

Dataset: `ChilleD/SVAMP` (split test, 300 problems), with `Type`.
Protocol: pass@1, no examples in the prompt.
Answer kind: a number, in `\boxed{}`.
Published: none in the Prefix-RFT paper.
Ours: none measured.
"""

from prefix_rft_rllib.evaluation.benchmarks.benchmark import BOXED, Benchmark, Row, without


def convert(row: Row) -> Row:
    """Join body and question; write the answer as text."""
    prompt = f"{row['Body'].strip()} {row['Question'].strip()}"
    columns = without(row, "Body", "Question", "Answer", "question_concat")
    return {**columns, "prompt": prompt, "answer": str(row["Answer"]), "domain": "math"}


SVAMP = Benchmark(
    name="svamp",
    source="ChilleD/SVAMP",
    source_config={"split": "test"},
    verifier="math",
    prompt_template=BOXED,
    convert=convert,
)
