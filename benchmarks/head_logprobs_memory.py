"""Peak memory of log probabilities and entropies from hidden states, forward and backward.

    python benchmarks/head_logprobs_memory.py [--num-tokens 8192] [--plain-num-tokens 512]

Each figure is that of a fresh process: the most resident memory during the computation above what
was there before it (hidden states, weight, targets), less the gradients of states and weight, which
any computation needs. `plain` is PyTorch's own log_softmax of all logits, at fewer tokens, since it
needs memory in proportion to them; its peak comes before the weight's gradient is there, so its
figure is too small by that matrix (519 MiB at the default sizes).
"""

import argparse
import csv
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

from prefix_rft_rllib.core.head_logprobs import head_logp_and_entropy

MIB = 2**20
PAGE_BYTES = 4096
FIELDS = ("computation", "num_tokens", "vocab_size", "hidden_size", "peak_extra_mib", "seconds")


def resident_bytes() -> int:
    """Resident memory of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


class PeakMemory:
    """Samples resident memory in a thread while the context is open."""

    def __enter__(self) -> "PeakMemory":
        self._before = self._peak = resident_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.002):
            self._peak = max(self._peak, resident_bytes())

    @property
    def extra_bytes(self) -> int:
        """Most memory above that at the beginning."""
        return self._peak - self._before


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum of log probabilities and entropies with all logits at once."""
    log_probs = torch.log_softmax(hidden @ weight.T, dim=-1)
    logp = log_probs.gather(-1, targets[:, None])
    return logp.sum() - (log_probs.exp() * log_probs).sum()


def chunked(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same by this package."""
    logp, entropy = head_logp_and_entropy(hidden, weight, targets, entropy_grad=True)
    return logp.sum() + entropy.sum()


COMPUTATIONS = {"plain": plain, "chunked": chunked}


def measure(name: str, num_tokens: int, vocab_size: int, hidden_size: int) -> dict[str, object]:
    """Peak of one forward and backward pass in this process, which should be a fresh one."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(num_tokens, hidden_size, generator=generator).requires_grad_()
    weight = (0.05 * torch.randn(vocab_size, hidden_size, generator=generator)).requires_grad_()
    targets = torch.randint(vocab_size, (num_tokens,), generator=generator)
    # A first small pass loads what PyTorch loads once.
    COMPUTATIONS[name](hidden[:2], weight[:64], targets[:2] % 64).backward()
    hidden.grad, weight.grad = None, None
    num_gradient_bytes = 4 * (hidden.numel() + weight.numel())
    started = time.perf_counter()
    with PeakMemory() as memory:
        COMPUTATIONS[name](hidden, weight, targets).backward()
    seconds = time.perf_counter() - started
    extra_mib = (memory.extra_bytes - num_gradient_bytes) / MIB
    values = (name, num_tokens, vocab_size, hidden_size, round(extra_mib), round(seconds, 1))
    return dict(zip(FIELDS, values, strict=True))


def measure_apart(name: str, num_tokens: int, args: argparse.Namespace) -> dict[str, str]:
    """The same in a fresh process."""
    sizes = ["--vocab-size", str(args.vocab_size), "--hidden-size", str(args.hidden_size)]
    command = [sys.executable, __file__, "--only", name, "--num-tokens", str(num_tokens), *sizes]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(zip(FIELDS, done.stdout.strip().split(","), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-tokens", type=int, default=8192)
    parser.add_argument("--plain-num-tokens", type=int, default=512)
    parser.add_argument("--vocab-size", type=int, default=151_936)
    parser.add_argument("--hidden-size", type=int, default=896)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=COMPUTATIONS, help="measure in this process")
    args = parser.parse_args()
    if args.only:
        result = measure(args.only, args.num_tokens, args.vocab_size, args.hidden_size)
        print(",".join(map(str, result.values())))
        return
    rows = [
        measure_apart(name, num_tokens, args)
        for name, num_tokens in (
            ("plain", args.plain_num_tokens),
            ("chunked", args.plain_num_tokens),
            ("chunked", args.num_tokens),
        )
    ]
    for row in rows:
        print(row)
    if args.out:
        with args.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
