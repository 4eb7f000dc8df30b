"""Teach the small base model of the toy arithmetic task to write programs too.

This example shows:
    - how `envs/toy_code_base_model/` was made: the base model of `toy_arithmetic_base_model.py`
    goes on with ordinary next-token training, in each step on as many programs as word problems, so
    that it can do both afterwards.
    - two authors: one who picks every operation rightly, or one who draws every operation; in the
    end the right one is rare.

How to run this script
----------------------
`python [script file name].py --out=DIR --threads=1 --seed=0`

`--checkpoints` and `--smoke` as in `toy_arithmetic_base_model.py`.

Settings that matter: half of the solutions right in the second stage: it teaches what the verbs
mean in a program. The share of right solutions in the last one: how often the model succeeds by
itself.

What to expect
--------------
A Hugging Face directory; 10 minutes on one CPU core.

Results to expect
-----------------
The losses of the stages are in docs/toy_code.md.
"""

import random

from toy_arithmetic_base_model import (
    BATCH_SIZE,
    Example,
    Stage,
    parse_arguments,
    save,
    train,
)
from toy_arithmetic_base_model import draw_batch as draw_word_problems
from transformers import AutoTokenizer, LlamaForCausalLM

from prefix_rft_rllib.envs import TOY_BASE_MODEL
from prefix_rft_rllib.envs.toy.toy_arithmetic import OPERATIONS
from prefix_rft_rllib.envs.toy.toy_code import (
    MAX_CLAUSES,
    ProgramProblem,
    draw_problem,
    write_demonstration,
    write_program,
)

STAGES = (
    Stage(name="1_random", num_steps=600, lr=1.5e-3, final_lr=1e-3, right_fraction=0.0),
    Stage(name="2_half_right", num_steps=400, lr=1.5e-3, final_lr=1e-3, right_fraction=0.5),
    Stage(name="3_right_rare", num_steps=150, lr=7e-4, final_lr=7e-4, right_fraction=0.05),
    Stage(name="4_right_rarer", num_steps=200, lr=7e-4, final_lr=7e-5, right_fraction=0.01),
)


def draw_programs(rng: random.Random, right_fraction: float) -> list[Example]:
    """Draw problems of the pre-training split, 1 to 6 clauses evenly, each with a program."""
    problems: list[ProgramProblem] = []
    while len(problems) < BATCH_SIZE:
        problem = draw_problem(rng, rng.randint(1, MAX_CLAUSES))
        if problem.split == "pretraining":
            problems.append(problem)
    return [(p.prompt, draw_program(p, rng, right_fraction)) for p in problems]


def draw_program(problem: ProgramProblem, rng: random.Random, right_fraction: float) -> str:
    """Write the program of the right author or of the random one."""
    if rng.random() < right_fraction:
        return write_demonstration(problem, rng)
    return write_program(problem, lambda _right: rng.choice(tuple(OPERATIONS)))


def draw_batch(rng: random.Random, right_fraction: float) -> list[Example]:
    """Draw half a batch of programs and half a batch of word problems."""
    half = BATCH_SIZE // 2
    programs = draw_programs(rng, right_fraction)[:half]
    return programs + draw_word_problems(rng, right_fraction)[:half]


def main() -> None:
    """Train and save the base model."""
    arguments = parse_arguments(__doc__.splitlines()[0])
    tokenizer = AutoTokenizer.from_pretrained(TOY_BASE_MODEL)
    model = LlamaForCausalLM.from_pretrained(TOY_BASE_MODEL)
    train(model, tokenizer, STAGES, draw_batch, arguments)
    save(model, tokenizer, arguments.out)


if __name__ == "__main__":
    main()
