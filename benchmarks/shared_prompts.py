"""Time of a local learner's `update()` with prompts computed once, over that with each row alone.

    python benchmarks/shared_prompts.py --threads 1 --clock cpu --out shared_prompts.csv

Updates of `--num-groups` groups of 8 rollouts of equal length, one of a group with a prefix, on a
random Llama of 135 M parameters (`--num-layers` for fewer); and, as `toy_base_model`, the rollouts
of `learner_update.py` on the shipped model. One learner takes both kinds of update in turns, at the
same weights; a first round warms up, and compares the gradients: tensor by tensor, norm of the
difference over norm.
Needs as many idle cores as threads; with `--clock cpu` and one thread the processor's time is
taken instead, for a machine that is busy.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from learner_update import CLOCKS, GROUP_SIZE, Row, draw_rows, episodes_of, measure
from random_model import random_lm, write_csv
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig

from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.envs import TOY_BASE_MODEL
from prefix_rft_rllib.rollouts import row_data


class Case(NamedTuple):
    """Tokens of every prompt and of every response."""

    num_prompt: int
    num_response: int


CASES = (Case(256, 256), Case(512, 128))


def llama_135m(num_layers: int) -> LlamaConfig:
    """The shape of a Llama of 135 M parameters, 30 layers in full."""
    return LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=num_layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )


def groups_of(case: Case, num_groups: int, vocab_size: int) -> list[Row]:
    """Groups of rollouts; the first of each has half of its response as prefix."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(num_groups):
        prompt = generator.integers(0, vocab_size, case.num_prompt).tolist()
        for member in range(GROUP_SIZE):
            response = generator.integers(0, vocab_size, case.num_response).tolist()
            num_prefix = 0 if member else case.num_response // 2
            rows.append(Row(prompt, response, num_prefix, 0.5 if member % 2 else -0.5))
    return rows


class Updates:
    """Updates of one learner on the same rows, at a learning rate of 0."""

    def __init__(self, args: argparse.Namespace, model_path: str, rows: list[Row]) -> None:
        num_groups = len(rows) // GROUP_SIZE
        config = PrefixRFTConfig().environment(
            "PrefixRFT/ToyArithmetic-v0",
            env_config={"max_response_tokens": max(len(row.response) for row in rows)},
        )
        config.training(
            model_path=model_path,
            group_size=GROUP_SIZE,
            num_problems_per_iteration=num_groups,
            num_problems_per_minibatch=num_groups,
            lr=0.0,
            grad_clip=None,
            compute_dtype=args.compute_dtype,
            max_tokens_per_microbatch=args.max_tokens_per_microbatch,
        ).learners(share_prompts=True)
        config.validate()
        space = gym.spaces.Discrete(2)  # not read by the module
        self._learner = config.build_learner(spaces={DEFAULT_MODULE_ID: (space, space)})
        self._scorer = self._learner.module[DEFAULT_MODULE_ID].scorer
        self._episodes = episodes_of(rows)

    def run(self, *, shares_prompts: bool) -> None:
        """One update."""
        self._scorer.min_saved_fraction = 0.0 if shares_prompts else None
        self._learner.update(
            training_data=row_data.WholeSequences(episodes=self._episodes),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 0},
            num_epochs=1,
            iteration=0,
        )

    def gradients(self, *, shares_prompts: bool) -> dict[str, Tensor]:
        """The gradient of one update, by the names of the parameters."""
        self.run(shares_prompts=shares_prompts)
        parameters = self._scorer.lm.named_parameters()
        return {name: p.grad.clone() for name, p in parameters if p.grad is not None}


def largest_difference(gradients: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    """Over the tensors: norm of the difference over norm."""
    return max(
        float((others[name] - value).norm() / value.norm()) for name, value in gradients.items()
    )


def run_case(
    args: argparse.Namespace, name: str, model_path: str, rows: list[Row]
) -> list[dict[str, object]]:
    updates = Updates(args, model_path, rows)
    apart = updates.gradients(shares_prompts=False)
    difference = largest_difference(apart, updates.gradients(shares_prompts=True))
    del apart
    seconds = measure(
        {
            "apart": lambda: updates.run(shares_prompts=False),
            "shared": lambda: updates.run(shares_prompts=True),
        },
        args.num_repetitions,
        CLOCKS[args.clock],
    )
    medians = {contender: statistics.median(values) for contender, values in seconds.items()}
    ratio = medians["shared"] / medians["apart"]
    print(
        f"{name}: {medians['shared']:.2f} s with prompts computed once, {medians['apart']:.2f} s "
        f"without: {ratio:.3f}; gradients differ by {difference:.1e}",
        flush=True,
    )
    return [
        {
            "case": name,
            "num_rows": len(rows),
            "num_tokens": sum(len(row.prompt) + len(row.response) for row in rows),
            "threads": args.threads,
            "clock": args.clock,
            "compute_dtype": args.compute_dtype,
            "contender": contender,
            "repetition": index,
            "seconds": round(value, 4),
            "gradient_difference": f"{difference:.2e}",
        }
        for contender, values in seconds.items()
        for index, value in enumerate(values)
    ]


def case_of(text: str) -> Case:
    """A case from "prompt:response"."""
    return Case(*(int(number) for number in text.split(":")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--num-repetitions", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--num-layers", type=int, default=30)
    parser.add_argument("--num-groups", type=int, default=1)
    parser.add_argument(
        "--case", type=case_of, action="append", help="tokens as prompt:response; may be repeated"
    )
    parser.add_argument("--compute-dtype", default="float32")
    parser.add_argument("--max-tokens-per-microbatch", type=int, default=16384)
    parser.add_argument("--skip-toy", action="store_true", help="leave the shipped model out")
    parser.add_argument("--out", type=Path, default=None, help="CSV file to write")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = []
    if not args.skip_toy:
        vocab_size = len(AutoTokenizer.from_pretrained(TOY_BASE_MODEL))
        results += run_case(args, "toy_base_model", str(TOY_BASE_MODEL), draw_rows(vocab_size))
    config = llama_135m(args.num_layers)
    with tempfile.TemporaryDirectory() as directory:
        random_lm(config).save_pretrained(directory)
        AutoTokenizer.from_pretrained(TOY_BASE_MODEL).save_pretrained(directory)
        for case in args.case or CASES:
            name = f"llama_{args.num_layers}_layers_{case.num_prompt}_{case.num_response}"
            rows = groups_of(case, args.num_groups, config.vocab_size)
            results += run_case(args, name, directory, rows)
    write_csv(args.out, results)


if __name__ == "__main__":
    main()
