"""Tokens per second of the transformers engine against `generate()` and a bare cache loop.

All three sample with the same random weights, random prompts and threads, and return
log-probabilities; their repetitions take turns within one run, and ratios are of medians of that
run. Two cases: every sequence runs to the length limit, and sequences end at random (mean length
half the limit).
Needs as many idle cores as threads: OpenMP threads that share a core with other work wait for each
other, and rates fall up to a hundredfold.

    python benchmarks/transformers_engine.py --threads 2 --out engine.csv
"""

import argparse
import math
import statistics
from pathlib import Path

import torch
from random_model import measure, random_lm, report, shift_logit
from transformers import DynamicCache, PreTrainedModel, Qwen2Config

from prefix_rft_rllib.engines import Engine, GenerationRequest, build_engine

EOS = 0
VOCAB_SIZE = 330


def build_model(
    hidden_size: int, num_layers: int, num_heads: int, eos_prob: float
) -> PreTrainedModel:
    """A random Qwen2 that gives the end token about this probability everywhere."""
    config = Qwen2Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=hidden_size,
        intermediate_size=8 * hidden_size // 3,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    lm = random_lm(config).eval().requires_grad_(False)
    shift_logit(lm, EOS, math.log(max(eos_prob, 1e-9) * VOCAB_SIZE))
    return lm


def left_padded(prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, prompts))
    ids = torch.tensor([[EOS] * (width - len(p)) + p for p in prompts])
    is_token = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids, is_token


def count_tokens(tokens: torch.Tensor) -> int:
    """Tokens up to and with the first end token, over all rows of shape (B, T)."""
    num_ends_before = (tokens == EOS).cumsum(-1) - (tokens == EOS).long()
    return int((num_ends_before == 0).sum())


@torch.inference_mode()
def hf_generate(model: PreTrainedModel, prompts: list[list[int]], num_new: int) -> int:
    ids, is_token = left_padded(prompts)
    output = model.generate(
        ids,
        attention_mask=is_token,
        max_new_tokens=num_new,
        do_sample=True,
        top_k=0,
        eos_token_id=EOS,
        pad_token_id=EOS,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = output.sequences[:, ids.shape[1] :]
    logps = torch.stack(output.logits, dim=1).log_softmax(-1)
    logps.gather(-1, tokens[..., None])
    return count_tokens(tokens)


@torch.inference_mode()
def bare_loop(model: PreTrainedModel, prompts: list[list[int]], num_new: int) -> int:
    ids, is_token = left_padded(prompts)
    cache, tokens, logps = DynamicCache(config=model.config), [], []
    positions = (is_token.cumsum(-1) - 1).clamp(min=0)
    for _ in range(num_new):
        logits = model(
            ids,
            attention_mask=is_token,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        all_logps = logits.log_softmax(-1)
        ids = torch.multinomial(all_logps.exp(), 1)
        tokens.append(ids)
        logps.append(all_logps.gather(-1, ids))
        is_token = torch.cat([is_token, is_token.new_ones(len(ids), 1)], 1)
        positions = positions[:, -1:] + 1
    return count_tokens(torch.cat(tokens, 1))


def engine_generate(engine: Engine, prompts: list[list[int]], num_new: int) -> int:
    requests = [GenerationRequest(p, num_new, seed=seed) for seed, p in enumerate(prompts)]
    return sum(len(generation.token_ids) for generation in engine.generate(requests))


def run_case(args: argparse.Namespace, case: str, group_size: int) -> list[dict[str, object]]:
    eos_prob = 0.0 if case == "full_length" else 2 / args.num_new_tokens
    model = build_model(args.hidden_size, args.num_layers, args.num_heads, eos_prob)
    engine = build_engine("transformers", model.config, eos_token_ids=[EOS], device="cpu")
    engine.load_weights(model.state_dict(), version=1)
    generator = torch.Generator().manual_seed(1)
    prompts = []
    for _ in range(args.num_sequences // group_size):
        length = int(torch.randint(20, 61, (), generator=generator))
        prompt = torch.randint(1, VOCAB_SIZE, (length,), generator=generator).tolist()
        prompts += [prompt] * group_size
    num_new = args.num_new_tokens
    rates = measure(
        {
            "hf_generate": lambda: hf_generate(model, prompts, num_new),
            "bare_loop": lambda: bare_loop(model, prompts, num_new),
            "engine": lambda: engine_generate(engine, prompts, num_new),
        },
        args.num_repetitions,
    )
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return [
        {
            "case": case,
            "group_size": group_size,
            "num_parameters": model.num_parameters(),
            "threads": args.threads,
            "contender": name,
            "tokens_per_s": round(medians[name]),
            "min": round(min(values)),
            "max": round(max(values)),
            "engine_speedup": round(medians["engine"] / medians[name], 2),
        }
        for name, values in rates.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--num-sequences", type=int, default=128)
    parser.add_argument("--num-new-tokens", type=int, default=128)
    parser.add_argument("--hidden-size", type=int, default=96)
    parser.add_argument("--num-layers", type=int, default=4)
    parser.add_argument("--num-heads", type=int, default=3)
    parser.add_argument("--num-repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None, help="CSV file to write")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [
        row
        for case in ("full_length", "random_length")
        for group_size in (1, 8)
        for row in run_case(args, case, group_size)
    ]
    report(args.out, rows)


if __name__ == "__main__":
    main()
