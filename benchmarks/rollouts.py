"""Tokens per second of an env runner's `sample` against its bare engine.

Both generate the same sequences: same prompts, seeds and threads, in turns within one run. `sample`
also resets and steps the environments token by token, verifies every response with the math
verifier in its worker processes, and builds the episodes. Every sequence runs to the length limit:
the end token is one that the model never gives. Two models: the shipped one, whose responses are
text, and a random one of ten million parameters.
Needs an idle core for the engine and one for the verifier.

    OMP_NUM_THREADS=1 python benchmarks/rollouts.py --engine transformers --out rollouts.csv
"""

import argparse
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from random_model import measure, random_lm, shift_logit, write_csv
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedModel

from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.core.prefix_sampling import PlannedRollout
from prefix_rft_rllib.engines import GenerationRequest
from prefix_rft_rllib.envs import TOY_BASE_MODEL
from prefix_rft_rllib.models.state_arrays import state_to_arrays
from prefix_rft_rllib.rollouts.token_env_runner import TokenEnvRunner

GROUP_SIZE = 8


def random_model(vocab_size: int, end_token: int) -> PreTrainedModel:
    """Ten million random weights that all but never give the end token."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    lm = random_lm(config).requires_grad_(False)
    shift_logit(lm, end_token, math.log(1e-9))
    return lm


def write_model(name: str, directory: Path) -> PreTrainedModel:
    """Write a model and a tokenizer whose end token never comes."""
    tokenizer = AutoTokenizer.from_pretrained(TOY_BASE_MODEL)
    tokenizer.eos_token = tokenizer.pad_token  # a token of no text
    model = AutoModelForCausalLM.from_pretrained(TOY_BASE_MODEL)
    if name == "random":
        model = random_model(model.config.vocab_size, tokenizer.eos_token_id)
    tokenizer.save_pretrained(directory)
    model.save_pretrained(directory)
    return model


def build_runner(directory: Path, model: PreTrainedModel, args: argparse.Namespace) -> Any:
    config = (
        PrefixRFTConfig()
        .environment(
            "PrefixRFT/Math-v0",
            env_config={
                "data": "toy_arithmetic",
                "data_config": {"num_problems": 64, "min_clauses": 2, "max_clauses": 6, "seed": 0},
                "max_prompt_tokens": 128,
                "max_response_tokens": args.num_new_tokens,
                "verifier": "math",
            },
        )
        .env_runners(num_env_runners=1, engine=args.engine)
        .training(model_path=str(directory))
        .debugging(seed=0)
    )
    config.validate()
    runner = TokenEnvRunner(config=config, worker_index=0)
    weights = {"default_policy": state_to_arrays(model.state_dict())}
    runner.set_state({"rl_module": weights, "weights_seq_no": 1})
    return runner


def plan_of(runner: Any, num_sequences: int) -> list[PlannedRollout]:
    problems = runner.env.unwrapped.problem_set.train
    return [
        PlannedRollout(
            problem_id=problems[group].problem_id,
            group_id=group,
            member=member,
            seed=1000 * group + member,
        )
        for group in range(num_sequences // GROUP_SIZE)
        for member in range(GROUP_SIZE)
    ]


def requests_of(
    runner: Any, plan: list[PlannedRollout], num_new_tokens: int
) -> list[GenerationRequest]:
    env = runner.env.unwrapped
    requests = []
    for rollout in plan:
        env.reset(options=rollout.reset_options)
        prompt = env.state_ids.tolist()
        requests.append(GenerationRequest(prompt, num_new_tokens, seed=rollout.seed))
    return requests


def run_case(name: str, args: argparse.Namespace) -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as directory:
        model = write_model(name, Path(directory))
        runner = build_runner(Path(directory), model, args)
        plan = plan_of(runner, args.num_sequences)
        requests = requests_of(runner, plan, args.num_new_tokens)
        engine = runner.engine
        rates = measure(
            {
                "engine": lambda: sum(len(g.token_ids) for g in engine.generate(requests)),
                "sample": lambda: sum(len(e) for e in runner.sample(rollouts=plan)),
            },
            args.num_repetitions,
        )
        runner.stop()
    medians = {contender: statistics.median(values) for contender, values in rates.items()}
    for contender, median in medians.items():
        share = median / medians["engine"]
        print(f"{args.engine} {name:8} {contender:7} {median:8.0f} tokens/s, {share:.2f} of engine")
    return [
        {
            "engine": args.engine,
            "model": name,
            "num_parameters": model.num_parameters(),
            "threads": torch.get_num_threads(),
            "contender": contender,
            "repetition": repetition,
            "tokens_per_s": round(rate),
        }
        for contender, values in rates.items()
        for repetition, rate in enumerate(values)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--models", nargs="+", choices=("shipped", "random"), default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--num-sequences", type=int, default=128)
    parser.add_argument("--num-new-tokens", type=int, default=128)
    parser.add_argument("--num-repetitions", type=int, default=7)
    parser.add_argument("--out", type=Path, default=None, help="CSV file to write")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [row for name in args.models or ("shipped", "random") for row in run_case(name, args)]
    write_csv(args.out, rows)


if __name__ == "__main__":
    main()
