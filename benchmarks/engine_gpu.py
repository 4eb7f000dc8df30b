"""Tokens per second of the generation engines on one device.

A random model of a Qwen2.5 shape, groups that share a prompt, every sequence to the length limit;
the transformers engine, and vLLM where it is installed. bfloat16 on a GPU, float32 on a CPU.

    python benchmarks/engine_gpu.py --model 0.5B --out engine_gpu.csv
    python benchmarks/engine_gpu.py --small    # any machine, seconds
"""

import argparse
import importlib.util
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from random_model import QWEN_SHAPES, qwen_config, random_lm, report

from prefix_rft_rllib.engines import GenerationRequest, build_engine


def requests_of(args: argparse.Namespace, vocab_size: int) -> list[GenerationRequest]:
    """Groups of eight with a random prompt each."""
    generator = torch.Generator().manual_seed(1)
    shape = (args.num_prompts, args.prompt_tokens)
    prompts = torch.randint(1, vocab_size, shape, generator=generator).tolist()
    return [
        GenerationRequest(prompts[number // 8], args.num_new_tokens, seed=number)
        for number in range(8 * args.num_prompts)
    ]


def measure(name: str, args: argparse.Namespace, model: Any) -> dict[str, Any]:
    """Tokens per second of one engine; the first repetition is left out."""
    vocab_size = model.config.vocab_size
    options: dict[str, Any] = {"dtype": "bfloat16" if torch.cuda.is_available() else "float32"}
    if name == "vllm":
        options["max_model_len"] = args.prompt_tokens + args.num_new_tokens
    # A random model all but never samples one given token.
    engine = build_engine(name, model.config, eos_token_ids=[vocab_size - 1], **options)
    engine.load_weights(model.state_dict(), version=1)
    requests = requests_of(args, vocab_size)
    rates = []
    for _ in range(args.num_repetitions + 1):
        started = time.perf_counter()
        num_tokens = sum(len(generation.token_ids) for generation in engine.generate(requests))
        rates.append(num_tokens / (time.perf_counter() - started))
    engine.close()
    return {
        "engine": name,
        "tokens_per_s": round(statistics.median(rates[1:])),
        "min": round(min(rates[1:])),
        "max": round(max(rates[1:])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=QWEN_SHAPES, default="0.5B")
    parser.add_argument("--num-prompts", type=int, default=32, help="each for a group of eight")
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--num-new-tokens", type=int, default=1024)
    parser.add_argument("--num-repetitions", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="tiny sizes, for a test")
    parser.add_argument("--out", type=Path, help="CSV file to write")
    args = parser.parse_args()
    if args.small:
        args.model, args.num_prompts, args.prompt_tokens = "small", 2, 8
        args.num_new_tokens, args.num_repetitions = 16, 1
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    model = random_lm(qwen_config(args.model))
    case = {
        "device": device,
        "model": args.model,
        "num_sequences": 8 * args.num_prompts,
        "prompt_tokens": args.prompt_tokens,
        "num_new_tokens": args.num_new_tokens,
    }
    engines = ["transformers", *(["vllm"] if importlib.util.find_spec("vllm") else [])]
    report(args.out, [case | measure(name, args, model) for name in engines])


if __name__ == "__main__":
    main()
