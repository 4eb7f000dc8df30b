r"""GSM8K: word problems of grade school (arXiv 2110.14168).

Dataset: 1,319 problems; `openai/gsm8k`, configuration `main` (split test). A solution ends with
"#### 72".
Protocol: pass@1, no examples in the prompt.
Answer kind: a number, in `\boxed{}`.
Published: none in the Prefix-RFT paper.
Ours: none measured.
"""

from prefix_rft_rllib.evaluation.benchmarks.benchmark import BOXED, Benchmark, Row, without

MARK = "####"


def convert(row: Row) -> Row:
    """Take the number after the mark, without the commas of thousands."""
    _, mark, number = row["answer"].rpartition(MARK)
    if not mark:
        raise KeyError(MARK)
    answer = number.strip().replace(",", "")
    columns = without(row, "question")
    return {**columns, "prompt": row["question"], "answer": answer, "domain": "math"}


GSM8K = Benchmark(
    name="gsm8k",
    source="openai/gsm8k",
    source_config={"name": "main", "split": "test"},
    verifier="math",
    prompt_template=BOXED,
    convert=convert,
)
