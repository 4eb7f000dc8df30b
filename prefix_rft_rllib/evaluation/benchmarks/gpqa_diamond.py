r"""GPQA-diamond: graduate-level questions of the sciences (arXiv 2311.12022).

Dataset: 198 questions; `Idavidrein/gpqa`, configuration `gpqa_diamond` (split train; gated: it
needs an account that has accepted its terms), with `Subdomain`. The place of the right option is
drawn from the question's text, so that it is the same in every run.
Protocol: pass@1, no examples in the prompt.
Answer kind: a letter, in `\boxed{}`.
Published: no figure is copied here. Ours: none measured.
"""

from prefix_rft_rllib.basics.random_draws import stable_hash
from prefix_rft_rllib.evaluation.benchmarks.benchmark import (
    LETTER,
    Benchmark,
    Row,
    with_options,
    without,
)

RIGHT = "Correct Answer"
WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def convert(row: Row) -> Row:
    """Shuffle the options and write them into the prompt."""
    question = row["Question"]
    names = sorted((RIGHT, *WRONG), key=lambda name: stable_hash("gpqa", question, name))
    return {
        **without(row, "Question", RIGHT, *WRONG),
        "prompt": with_options(question, [row[name].strip() for name in names]),
        "answer": chr(ord("A") + names.index(RIGHT)),
        "domain": "choice",
    }


GPQA_DIAMOND = Benchmark(
    name="gpqa_diamond",
    source="Idavidrein/gpqa",
    source_config={"name": "gpqa_diamond", "split": "train"},
    verifier="choice",
    prompt_template=LETTER,
    convert=convert,
)
