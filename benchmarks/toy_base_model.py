"""Measure what a model can do on the toy arithmetic task, skill by skill.

    python benchmarks/toy_base_model.py [--model DIR] [--out FILE.json|FILE.csv] [--threads 1]

Prints and stores, all on generated held-out problems (`--num-problems` of each length): success
by number of clauses (sampled at temperature 1, and greedy), success from a right beginning,
entropy at the choices of an operation and elsewhere, and the share of wrong calculations, copies
and choices given a right beginning.
"""

import argparse
import csv
import json
import logging
import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.modeling_utils import PreTrainedModel

from prefix_rft_rllib.envs.toy.toy_arithmetic import (
    MAX_CLAUSES,
    OPERATIONS,
    draw_problem,
    generate_rows,
    write_demonstration,
    write_solution,
)

MAX_RESPONSE_TOKENS = 96
NUM_PROBLEMS = 64
GROUP_SIZE = 8
BASE_MODEL = Path(__file__).parents[1] / "envs" / "toy_base_model"

logger = logging.getLogger("toy_base_model")


class Measurer:
    """Measures one model; every figure comes from the same held-out problems.

    Args:
        model: Causal LM.
        tokenizer: Its tokenizer, with a chat template.
        num_problems: Problems of each length.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        num_problems: int = NUM_PROBLEMS,
    ) -> None:
        self.num_problems = num_problems
        self.model = model.eval()
        self.tokenizer = tokenizer

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of a problem in the chat template."""
        messages = [{"role": "user", "content": prompt}]
        text = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        return self.tokenizer.encode(str(text), add_special_tokens=False)

    @torch.no_grad()
    def success(
        self, num_clauses: tuple[int, int], *, greedy: bool = False, prefix_fraction: float = 0.0
    ) -> float:
        """Share of rollouts with the right answer.

        Args:
            num_clauses: Fewest and most clauses of the problems.
            greedy: One greedy rollout per problem instead of `GROUP_SIZE` sampled ones.
            prefix_fraction: Share of the demonstration that is given, in [0, 1); it ends before
                the boxed answer.
        """
        rows = generate_rows(
            num_problems=self.num_problems,
            min_clauses=num_clauses[0],
            max_clauses=num_clauses[1],
            seed=0,
            split="held_out",
        )
        rows = rows if greedy else [row for row in rows for _ in range(GROUP_SIZE)]
        box = self.tokenizer.convert_tokens_to_ids("\\boxed{")
        starts = []
        for row in rows:
            demonstration = self.tokenizer.encode(row["demonstration"])
            num_given = int(prefix_fraction * (len(demonstration) + 1))
            given = demonstration[: min(num_given, demonstration.index(box))]
            starts.append(self.prompt_ids(row["prompt"]) + given)
        texts = self.generate(starts, greedy)
        is_right = [
            text.endswith(f"\\boxed{{{row['answer']}}}")
            for text, row in zip(texts, rows, strict=True)
        ]
        return round(sum(is_right) / len(is_right), 4)

    def generate(self, starts: list[list[int]], greedy: bool) -> list[str]:
        """Continue each start to its end token; returns texts without special tokens."""
        batch = self.tokenizer.pad(
            {"input_ids": starts}, padding=True, padding_side="left", return_tensors="pt"
        )
        output = self.model.generate(
            **batch,
            max_new_tokens=MAX_RESPONSE_TOKENS,
            do_sample=not greedy,
            top_k=0 if not greedy else None,
        )
        return self.tokenizer.batch_decode(output, skip_special_tokens=True)

    @torch.no_grad()
    def token_figures(self, right_fraction: float) -> dict[str, float]:
        """Entropies and error shares at the tokens of given solutions.

        Args:
            right_fraction: Share of right solutions, 0 or 1; the others take a random valid
                operation in every clause.
        """
        rng = random.Random("token figures")
        symbols = {self.tokenizer.convert_tokens_to_ids(f"Ġ{symbol}Ġ") for symbol in OPERATIONS}
        equals = self.tokenizer.convert_tokens_to_ids("Ġ=Ġ")
        sums = {key: [0.0, 0] for key in ("choice_entropy", "other_entropy")}
        wrong = {key: [0, 0] for key in ("choice", "calculation", "copy")}
        for index in range(8 * self.num_problems):
            problem = draw_problem(rng, 1 + index % MAX_CLAUSES)
            while problem.split != "held_out":
                problem = draw_problem(rng, 1 + index % MAX_CLAUSES)
            text = (
                write_demonstration(problem, rng)
                if right_fraction
                else write_solution(problem, lambda _right, valid: rng.choice(valid))
            )
            prompt = self.prompt_ids(problem.prompt)
            response = [*self.tokenizer.encode(text), self.tokenizer.eos_token_id]
            logits = self.model(torch.tensor([prompt + response[:-1]])).logits[0, len(prompt) - 1 :]
            logp = logits.log_softmax(-1)
            entropies = -(logp.exp() * logp).sum(-1)
            is_right = logits.argmax(-1) == torch.tensor(response)
            for position, token in enumerate(response):
                kind = "choice" if token in symbols else "copy"
                if equals in response[max(0, position - 2) : position]:
                    kind = "calculation"
                total = sums["choice_entropy" if kind == "choice" else "other_entropy"]
                total[0] += entropies[position].item()
                total[1] += 1
                wrong[kind][0] += not is_right[position]
                wrong[kind][1] += 1
        figures = {key: round(total / count, 5) for key, (total, count) in sums.items()}
        figures |= {f"wrong_{key}": round(bad / count, 5) for key, (bad, count) in wrong.items()}
        return figures


def measure(measurer: Measurer) -> dict[str, dict[str, float]]:
    """Measure all figures of a model; see the module's docstring."""
    torch.manual_seed(0)
    spans = {str(count): (count, count) for count in range(1, MAX_CLAUSES + 1)}
    spans |= {"2-6": (2, 6), "7-8": (7, 8)}
    groups = ("2-6", "7-8")
    return {
        "success": {name: measurer.success(span) for name, span in spans.items()},
        "success_greedy": {name: measurer.success(spans[name], greedy=True) for name in groups},
        "success_from_half": {
            name: measurer.success(spans[name], prefix_fraction=0.5) for name in groups
        },
        "success_from_nine_tenths": {
            name: measurer.success(spans[name], prefix_fraction=0.9) for name in groups
        },
        "tokens_of_random_solutions": measurer.token_figures(right_fraction=0.0),
        "tokens_of_right_solutions": measurer.token_figures(right_fraction=1.0),
    }


def write(figures: dict[str, dict[str, float]], path: Path) -> None:
    """Write the figures as JSON, or to a name that ends in .csv as one row per figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix != ".csv":
            file.write(json.dumps(figures, indent=2) + "\n")
            return
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["figure", "of", "value"])
        for figure, values in figures.items():
            writer.writerows([figure, name, value] for name, value in values.items())


def main() -> None:
    """Measure a model directory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=BASE_MODEL, help="model directory")
    parser.add_argument("--out", type=Path, help="JSON or CSV file for the figures")
    parser.add_argument("--num-problems", type=int, default=NUM_PROBLEMS, help="of each length")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    figures = measure(Measurer(model, tokenizer, arguments.num_problems))
    logger.info("%s", json.dumps(figures, indent=2))
    if arguments.out:
        write(figures, arguments.out)


if __name__ == "__main__":
    main()
