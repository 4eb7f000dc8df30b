"""Generated word problems in plain English: a check that a real model is loaded and asked rightly.

Dataset: written by `generate_rows`; no network and no file is needed. It is no published
benchmark, and much easier than SVAMP: one to three steps with small whole numbers.
Protocol: pass@1, no examples in the prompt.
Answer kind: a whole number, the last one of the response, since small models seldom box it. The
field `num_steps` serves for a breakdown.
Published: none.
Ours: SmolLM2-135M-Instruct (weights of 4 bits) solves 5 of 50 greedily (docs/evaluation.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prefix_rft_rllib.basics.random_draws import stable_hash
from prefix_rft_rllib.evaluation.benchmarks.benchmark import Benchmark

PEOPLE = ("Anna", "Ben", "Carla", "David", "Emma", "Farid", "Grace", "Hugo")
THINGS = ("apples", "books", "coins", "marbles", "pencils", "shells", "stamps", "stickers")
GAINS = ("finds {n} more {things}", "buys {n} more {things}", "gets {n} {things} from a friend")
LOSSES = ("loses {n} {things}", "gives {n} {things} to a friend", "sells {n} {things}")
MAX_STEPS = 3
NUMBER = "{prompt}\n\nAnswer with one number and nothing else."


def generate_rows(num_problems: int = 200, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Write problems; each is a function of its number and the seed.

    Args:
        num_problems: How many.
        seed: Other problems.

    Yields:
        Rows with `id`, `prompt`, `answer`, `domain` and `num_steps`.
    """
    for number in range(num_problems):
        yield _row(number, seed)


def _row(number: int, seed: int) -> dict[str, Any]:
    def draw(what: str, choices: int, step: int = 0) -> int:
        return stable_hash("word_problems", seed, number, what, step) % choices

    person = PEOPLE[draw("person", len(PEOPLE))]
    things = THINGS[draw("things", len(THINGS))]
    num_steps = 1 + number % MAX_STEPS
    count = 5 + draw("start", 16)
    sentences = [f"{person} has {count} {things}."]
    for step in range(num_steps):
        change = 2 + draw("change", 8, step)
        loses = count > change and draw("loses", 2, step) == 1
        forms = LOSSES if loses else GAINS
        form = forms[draw("form", len(forms), step)].format(n=change, things=things)
        sentences.append(f"Then {person} {form}.")
        count += -change if loses else change
    sentences.append(f"How many {things} does {person} have now?")
    return {
        "id": f"word-problem-{seed}-{number}",
        "prompt": " ".join(sentences),
        "answer": str(count),
        "domain": "math",
        "num_steps": num_steps,
    }


WORD_PROBLEMS = Benchmark(
    name="word_problems",
    source=f"{__name__}:generate_rows",
    verifier="math",
    verifier_config={"extract": "last"},
    prompt_template=NUMBER,
)
