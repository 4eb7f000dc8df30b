"""Pre-train the small base model of the toy arithmetic task.

This example shows:
    - how `envs/toy_base_model/` was made: a causal LM of 0.51 M parameters that copies, calculates
    and can go on from right steps, but seldom chooses the right operations by itself.
    - three stages of ordinary next-token training on generated solutions: all operations drawn at
    random, then half of the solutions right, then right ones rare again.

How to run this script
----------------------
`python [script file name].py --out=DIR --threads=1 --seed=0`

`--checkpoints DIR` keeps the weights after each stage; a later run with the same directory goes on
after the last stage it finds there. `--smoke` takes a few steps of each stage.

Settings that matter: the lengths (1 to 8 clauses): a base that never saw long chains does not learn
them by reinforcement. The share of right solutions in the last stage: it sets how often the base
succeeds by itself. Right and random solutions are whole solutions by one author each; mixing within
a solution would not teach the model to go on correctly from a right beginning.

What to expect
--------------
A Hugging Face directory; 24 minutes on one CPU core.

Results to expect
-----------------
The losses of the stages, and what the model can do as `benchmarks/toy_base_model.py` measures it,
are in docs/toy_arithmetic.md.
"""

import argparse
import itertools
import json
import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from prefix_rft_rllib.envs.toy.tokenizer import build_toy_tokenizer
from prefix_rft_rllib.envs.toy.toy_arithmetic import (
    MAX_CLAUSES,
    WordProblem,
    draw_problem,
    write_demonstration,
    write_solution,
)

BATCH_SIZE = 64
MICRO_BATCH_SIZE = 16  # rows of similar length, so that little is padded
MAX_POSITIONS = 16384
VOCAB_SIZE = 320  # the tokenizer's 306 entries, rounded up
NUM_WARMUP_STEPS = 50
NO_LABEL = -100

logger = logging.getLogger("toy_arithmetic_base_model")

CausalLM = Qwen2ForCausalLM | LlamaForCausalLM
Example = tuple[str, str]
"""A problem text and a solution."""
DrawExamples = Callable[[random.Random, float], list[Example]]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the pre-training.

    Attributes:
        name: Name of the stage, also of its checkpoint.
        num_steps: Optimizer steps.
        lr: Learning rate after warm-up.
        final_lr: Learning rate at the last step, reached by a cosine.
        right_fraction: Share of the solutions whose operations are all right; in the others each
            operation is drawn from the valid ones.
    """

    name: str
    num_steps: int
    lr: float
    final_lr: float
    right_fraction: float


STAGES = (
    Stage(name="1_random", num_steps=4000, lr=3e-3, final_lr=3e-4, right_fraction=0.0),
    Stage(name="2_half_right", num_steps=400, lr=1.5e-3, final_lr=1e-3, right_fraction=0.5),
    Stage(name="3_right_rare", num_steps=200, lr=7e-4, final_lr=7e-4, right_fraction=0.05),
    Stage(name="4_right_rarer", num_steps=250, lr=7e-4, final_lr=7e-5, right_fraction=0.01),
)


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Build the untrained model; its weights come from torch's global generator."""
    config = Qwen2Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=96,
        intermediate_size=288,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def as_llama(model: Qwen2ForCausalLM) -> LlamaForCausalLM:
    """The same function as a Llama model, with equal logits.

    For the model type "qwen2" `AutoTokenizer` puts its own splitting and normalisation in the
    place of the saved tokenizer's, which loses text; for "llama" it does not. A Qwen2 layer is a
    Llama layer with biases whose output bias is zero.
    """
    kept = model.config.to_dict()
    shared = LlamaConfig().to_dict().keys() & kept.keys() - {"model_type", "architectures"}
    config = LlamaConfig(**{key: kept[key] for key in shared}, attention_bias=True)
    llama = LlamaForCausalLM(config)
    zeros = {
        name: torch.zeros_like(value)
        for name, value in llama.state_dict().items()
        if name.endswith("o_proj.bias")
    }
    llama.load_state_dict({**model.state_dict(), **zeros})
    llama.generation_config = GenerationConfig(
        eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    return llama


def draw_problems(rng: random.Random) -> Iterator[WordProblem]:
    """Yield problems of the pre-training split without end, 1 to 8 clauses evenly."""
    while True:
        problem = draw_problem(rng, rng.randint(1, MAX_CLAUSES))
        if problem.split == "pretraining":
            yield problem


def draw_solution(problem: WordProblem, rng: random.Random, right_fraction: float) -> str:
    """Write the solution of the right author or of the random one."""
    if rng.random() < right_fraction:
        return write_demonstration(problem, rng)
    return write_solution(problem, lambda _right, valid: rng.choice(valid))


def draw_batch(rng: random.Random, right_fraction: float) -> list[Example]:
    """Draw problems of the pre-training split, each with a solution."""
    problems = list(itertools.islice(draw_problems(rng), BATCH_SIZE))
    return [(p.prompt, draw_solution(p, rng, right_fraction)) for p in problems]


def encode_examples(
    tokenizer: PreTrainedTokenizerFast, examples: list[Example]
) -> list[tuple[list[int], list[int]]]:
    """Encode each example as (prompt ids, response ids with the end token)."""
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        for prompt, _ in examples
    ]
    solutions = [solution for _, solution in examples]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    response_ids = tokenizer(solutions, add_special_tokens=False)["input_ids"]
    return [
        (prompt, [*response, tokenizer.eos_token_id])
        for prompt, response in zip(prompt_ids, response_ids, strict=True)
    ]


def pad_rows(rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-pad rows to a batch; the padding's id does not matter.

    Args:
        rows: (prompt ids, response ids) of each row.

    Returns:
        Input ids and labels, both int64 of shape (B, T). A label is the token *at* its position;
        prompt and padding have `NO_LABEL`.
    """
    width = max(len(prompt) + len(response) for prompt, response in rows)
    input_ids = torch.zeros((len(rows), width), dtype=torch.int64)
    labels = torch.full((len(rows), width), NO_LABEL)
    for index, (prompt, response) in enumerate(rows):
        end = len(prompt) + len(response)
        input_ids[index, :end] = torch.tensor(prompt + response)
        labels[index, len(prompt) : end] = torch.tensor(response)
    return input_ids, labels


def response_logits(
    model: CausalLM, input_ids: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the labelled tokens.

    Args:
        model: The model.
        input_ids: Right-padded ids, int64, shape (B, T). Attention is causal, so the padding at
            the right needs no mask.
        labels: As from `pad_rows`, shape (B, T).

    Returns:
        Logits of shape (N, V) and the N labels, row by row.
    """
    hidden = model.model(input_ids=input_ids[:, :-1], use_cache=False).last_hidden_state
    is_labelled = labels[:, 1:] != NO_LABEL
    return model.lm_head(hidden[is_labelled]), labels[:, 1:][is_labelled]


def lr_at(stage: Stage, step: int) -> float:
    """Learning rate of a step: linear warm-up, then a cosine from `lr` to `final_lr`."""
    progress = step / max(1, stage.num_steps - 1)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    lr = stage.final_lr + (stage.lr - stage.final_lr) * cosine
    return lr * min(1.0, (step + 1) / NUM_WARMUP_STEPS)


def train_stage(
    model: CausalLM,
    tokenizer: PreTrainedTokenizerFast,
    stage: Stage,
    seed: int,
    draw_examples: DrawExamples,
) -> float:
    """Train the model in place for one stage.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        stage: Steps, rate, share of right solutions.
        seed: Seed of the examples.
        draw_examples: Draws the examples of a step, with the stage's share of right solutions.

    Returns:
        Mean loss of the last 50 steps, nats per response token.
    """
    rng = random.Random(f"{seed} {stage.name}")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=stage.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    losses: list[float] = []
    progress = tqdm(range(stage.num_steps), desc=stage.name, mininterval=5.0)
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = lr_at(stage, step)
        examples = draw_examples(rng, stage.right_fraction)
        losses.append(train_step(model, optimizer, encode_examples(tokenizer, examples)))
        if step % 20 == 0:
            recent = losses[-50:]
            progress.set_postfix(loss=f"{sum(recent) / len(recent):.4f}")
    recent = losses[-50:]
    return sum(recent) / len(recent)


def train_step(
    model: CausalLM,
    optimizer: torch.optim.Optimizer,
    rows: list[tuple[list[int], list[int]]],
) -> float:
    """Take one optimizer step on the mean loss of all response tokens; returns that loss."""
    rows = sorted(rows, key=lambda row: len(row[0]) + len(row[1]))
    num_tokens = sum(len(response) for _, response in rows)
    total = 0.0
    optimizer.zero_grad()
    for first in range(0, len(rows), MICRO_BATCH_SIZE):
        micro_batch = rows[first : first + MICRO_BATCH_SIZE]
        input_ids, labels = pad_rows(micro_batch)
        logits, targets = response_logits(model, input_ids, labels)
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / num_tokens
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return total


def parse_arguments(description: str) -> argparse.Namespace:
    """Read the command line, set up log, threads and torch's seed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="directory of the new model")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", type=Path, help="keeps the weights after each stage")
    parser.add_argument("--smoke", action="store_true", help="a few steps of each stage")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    return arguments


def main() -> None:
    """Train and save the base model."""
    arguments = parse_arguments(__doc__.splitlines()[0])
    tokenizer = build_toy_tokenizer(MAX_POSITIONS)
    model = build_model(tokenizer)
    train(model, tokenizer, STAGES, draw_batch, arguments)
    save(as_llama(model), tokenizer, arguments.out)


def train(
    model: CausalLM,
    tokenizer: PreTrainedTokenizerFast,
    stages: Sequence[Stage],
    draw_examples: DrawExamples,
    arguments: argparse.Namespace,
) -> None:
    """Run all stages, or those after the last kept checkpoint."""
    for stage in stages:
        kept = arguments.checkpoints and arguments.checkpoints / f"{stage.name}.pt"
        if kept and kept.exists():
            model.load_state_dict(torch.load(kept))
            logger.info("%s: taken from %s", stage.name, kept)
            continue
        if arguments.smoke:
            stage = Stage(**{**vars(stage), "num_steps": 5})
        loss = train_stage(model, tokenizer, stage, arguments.seed, draw_examples)
        logger.info("%s: loss %.4f nats per response token", stage.name, loss)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save(model.state_dict(), kept)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write model and tokenizer as a Hugging Face model directory."""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    logger.info("saved %s", json.dumps(sorted(path.name for path in out.iterdir())))


if __name__ == "__main__":
    main()
