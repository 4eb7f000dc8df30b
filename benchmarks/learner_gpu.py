"""The learner's tokens per second, model FLOPs utilisation and peak memory.

A random model of a Qwen2.5 shape is trained by `sft` on long demonstrations: nothing is sampled,
and an update makes the same passes as for rollouts, one without gradients (old log-probabilities)
and one with. `tokens_per_s` counts tokens of the rows, prompt and response.

Model FLOPs of a token: a pass costs 2 N + 2 L h T, with N the weights of layers and head (each
multiplied once), L layers, h hidden units and T tokens a row (causal attention: a token sees T / 2
on average). An update is four passes: old log-probabilities, forward, and backward, which is two.
What activation checkpointing computes again is not counted. Utilisation is that over the device's
dense bfloat16 peak; `--peak-tflops` for devices that are not in the table.

    python benchmarks/learner_gpu.py --model 0.5B --out learner_gpu.csv
    python benchmarks/learner_gpu.py --small    # any machine, seconds
"""

import argparse
import json
import random
import resource
import statistics
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from random_model import QWEN_SHAPES, qwen_config, report, save_random_model

from prefix_rft_rllib import PrefixRFTConfig

PEAK_TFLOPS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "A10G": 70.0,
    "L4": 121.0,
    "RTX 4090": 165.0,
}
"""Dense bfloat16 peak by part of the device's name; the first part that fits counts."""
PROMPT = "?"
NUM_PROMPT_TOKENS = 1


def device_name() -> str:
    """Name of the device that the learner uses."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def peak_tflops(name: str) -> float | None:
    """The table's peak of a device; None if it is not there."""
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)


def update_flops_per_token(model_config: Any, num_parameters: int, row_tokens: int) -> float:
    """Model FLOPs of an update; tied weights of embeddings and head count once, as the head."""
    attention = 2 * model_config.num_hidden_layers * model_config.hidden_size * row_tokens
    return 4 * (2 * num_parameters + attention)


def write_problems(path: Path, num_rows: int, row_tokens: int) -> None:
    """Problems with one demonstration each: digits, a token each, and the end token."""
    rng = random.Random(0)
    with path.open("w") as file:
        for number in range(num_rows):
            digits = "".join(rng.choices("0123456789", k=row_tokens - NUM_PROMPT_TOKENS - 1))
            row = {"id": number, "prompt": PROMPT, "answer": str(number), "demonstration": digits}
            file.write(json.dumps(row) + "\n")


def build_config(
    args: argparse.Namespace, scratch: Path, *, checkpointing: bool
) -> PrefixRFTConfig:
    """SFT on the rows, one optimizer step an iteration."""
    is_cuda = torch.cuda.is_available()
    return (
        PrefixRFTConfig()
        .environment(
            "PrefixRFT/Math-v0",
            env_config={
                "data": str(scratch / "problems.jsonl"),
                "chat_template": False,
                "max_prompt_tokens": NUM_PROMPT_TOKENS,
                "max_response_tokens": args.row_tokens - NUM_PROMPT_TOKENS,
            },
        )
        .env_runners(num_env_runners=0)
        .learners(
            num_learners=0,
            num_gpus_per_learner=int(is_cuda),
            activation_checkpointing=checkpointing,
            attn_implementation=args.attn_implementation,
        )
        .training(
            model_path=str(scratch / "model"),
            method="sft",
            num_problems_per_iteration=args.num_rows,
            num_problems_per_minibatch=args.num_rows,
            max_tokens_per_microbatch=args.max_tokens_per_microbatch,
            compute_dtype="bfloat16",
            lr=1e-6,
        )
        .reporting(run_dir=str(scratch / "run"), progress=False, preflight=False)
        .debugging(log_level="ERROR")
    )


def peak_gib() -> float:
    """Peak memory in GiB: of the device's tensors, or on a CPU of the process so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(args: argparse.Namespace, scratch: Path, *, checkpointing: bool) -> dict[str, Any]:
    """Seconds of the learner's updates, the first one left out, and peak memory."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    algo = build_config(args, scratch, checkpointing=checkpointing).build_algo()
    seconds = []
    for _ in range(args.num_iterations + 1):
        result = algo.train()
        seconds.append(float(result["time"]["learning"]))
    peak = peak_gib()
    algo.stop()
    median = statistics.median(seconds[1:])
    return {
        "activation_checkpointing": checkpointing,
        "update_s": round(median, 3),
        "min_s": round(min(seconds[1:]), 3),
        "max_s": round(max(seconds[1:]), 3),
        "peak_gib": round(peak, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=QWEN_SHAPES, default="0.5B")
    parser.add_argument("--row-tokens", type=int, default=4096)
    parser.add_argument("--num-rows", type=int, default=32, help="of an update")
    parser.add_argument("--max-tokens-per-microbatch", type=int, default=16384)
    parser.add_argument("--num-iterations", type=int, default=5)
    parser.add_argument("--attn-implementation", help="attention of transformers")
    parser.add_argument("--peak-tflops", type=float, help="dense bfloat16 peak of the device")
    parser.add_argument("--small", action="store_true", help="tiny sizes, for a test")
    parser.add_argument("--out", type=Path, help="CSV file to write")
    args = parser.parse_args()
    if args.small:
        args.model, args.row_tokens, args.num_rows, args.num_iterations = "small", 128, 4, 1
    ray.init(log_to_driver=False, logging_level="ERROR")
    peak = args.peak_tflops or peak_tflops(device_name())
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        model_config = qwen_config(args.model)
        num_parameters = save_random_model(scratch / "model", model_config)
        write_problems(scratch / "problems.jsonl", args.num_rows, args.row_tokens)
        per_token = update_flops_per_token(model_config, num_parameters, args.row_tokens)
        for checkpointing in (True, False):
            measured = measure(args, scratch, checkpointing=checkpointing)
            tokens_per_s = args.num_rows * args.row_tokens / measured["update_s"]
            utilisation = tokens_per_s * per_token / (peak * 1e12) if peak else None
            rows.append(
                {
                    "device": device_name(),
                    "model": args.model,
                    "num_parameters": num_parameters,
                    "row_tokens": args.row_tokens,
                    "num_rows": args.num_rows,
                    **measured,
                    "tokens_per_s": round(tokens_per_s),
                    "peak_tflops": peak or "",
                    "utilisation": round(utilisation, 3) if utilisation is not None else "",
                }
            )
    report(args.out, rows)


if __name__ == "__main__":
    main()
