"""Prefix-RFT on generated programming problems, graded by tests in the sandbox.

What it shows: a small language model that writes programs of the right form, but seldom with the
right operations, learns them from demonstrations' beginnings and its own tested attempts. With
`--mixed` half of the problems are the word problems of `toy_arithmetic_prefix_rft.py`, and each
problem meets its own verifier.

How to run:
    python tuned_examples/code_prefix_rft.py
    python tuned_examples/code_prefix_rft.py --method rft --seed 1
    python tuned_examples/code_prefix_rft.py --mixed
    python tuned_examples/code_prefix_rft.py --num-env-runners 0   # all in one process
    python tuned_examples/code_prefix_rft.py --log   # prefixes, failing tests, weights, each time

Settings that matter: as in `toy_arithmetic_prefix_rft.py`. `extract="whole"`, because the model
writes the program and nothing else; for chat models leave it out (the last fenced block). On
machines that must not run code without isolation add `require_isolation=True` to the code
verifier's settings.

Results to expect: docs/toy_code.md has the measured ones.
"""

import sys
from typing import Any

from toy_arithmetic_prefix_rft import NUM_HELD_OUT, argument_parser, run, training_config

from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.envs import TOY_CODE_BASE_MODEL, TokenEnv

NUM_ITERATIONS = 40
NUM_PROBLEMS = 800
LENGTHS = {
    "toy_code": {"min_clauses": 2, "max_clauses": 5},
    "toy_arithmetic": {"min_clauses": 2, "max_clauses": 6},
}
CODE_VERIFIER = {"extract": "whole", "timeout_s": 5.0}


def problems(generator: str, num_problems: int, **settings: Any) -> dict[str, Any]:
    """One source of generated problems."""
    settings = {"num_problems": num_problems, **LENGTHS[generator], **settings}
    return {"data": generator, "data_config": settings}


def build_config(
    method: str = "prefix_rft",
    *,
    seed: int = 0,
    num_iterations: int = NUM_ITERATIONS,
    num_held_out: int = NUM_HELD_OUT,
    mixed: bool = False,
) -> PrefixRFTConfig:
    """The run's settings; with `mixed` each generator gives half of the training problems."""
    generators = ["toy_code", "toy_arithmetic"] if mixed else ["toy_code"]
    num_each = NUM_PROBLEMS // len(generators)
    env_config = {
        "data": [problems(name, num_each, seed=seed) for name in generators],
        "held_out_data": {
            name: problems(name, num_held_out, split="held_out", seed=0) for name in generators
        },
        "tokenizer": str(TOY_CODE_BASE_MODEL),
        "max_prompt_tokens": 64,
        "max_response_tokens": 96,
        "verifier": "domain",
        "verifier_config": {"code": CODE_VERIFIER},
    }
    return (
        training_config(method, seed=seed, num_iterations=num_iterations)
        .environment(TokenEnv, env_config=env_config)
        .training(model_path=str(TOY_CODE_BASE_MODEL))
        .evaluation(held_out_num_samples=4)
    )


config = build_config()


def main() -> int:
    """Run with the settings of the command line."""
    parser = argument_parser(__doc__.splitlines()[0], NUM_ITERATIONS)
    parser.add_argument("--mixed", action="store_true", help="word problems too")
    args = parser.parse_args()
    run(build_config, "toy_mixed" if args.mixed else "toy_code", args, mixed=args.mixed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
