r"""ARC-c: the challenge set of grade-school science questions (arXiv 1803.05457).

Dataset: 1,172 questions; `allenai/ai2_arc`, configuration `ARC-Challenge` (split test). Options
that are labelled 1 to 4 there get the letters A to D.
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
    """Write the options into the prompt, and the right label as a letter."""
    texts, labels = list(row["choices"]["text"]), list(row["choices"]["label"])
    if row["answerKey"] not in labels:
        raise KeyError(row["answerKey"])
    return {
        **without(row, "question", "choices", "answerKey"),
        "prompt": with_options(row["question"], texts),
        "answer": chr(ord("A") + labels.index(row["answerKey"])),
        "domain": "choice",
    }


ARC_CHALLENGE = Benchmark(
    name="arc_c",
    source="allenai/ai2_arc",
    source_config={"name": "ARC-Challenge", "split": "test"},
    verifier="choice",
    prompt_template=LETTER,
    convert=convert,
)
