"""Tokens per second of a local learner's `update()` against a plain PyTorch loop of the same work.

    python benchmarks/learner_update.py --threads 2 --out learner_update.csv

An update takes two optimizer steps, on 64 rows each, from 128 finished rollouts as they come from
the env runners: groups of 8, one of them with a prefix of which the fifth of highest entropy is
trained on. Contenders: `update`, the learner; `loop`, log-probabilities and entropies of all rows
without gradients first, then the steps; `loop_without_pass`, its steps alone, with values of the
warm-up. All begin at rows of token ids, cut them into the same micro-batches, run the model on them
without a padding mask (rows are padded on the right) and compute logits at response positions
alone. They take turns within one run; a first round warms up, and checks that learner and loop
end at the same weights.
Needs as many idle cores as threads; with `--clock cpu` and one thread the processor's time is
taken instead, for a machine that is busy.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from random_model import qwen_config, random_lm, write_csv
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import prefix_rft_rllib.rollouts.row_data as row_data
from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.core.prefix_sampling import PlannedRollout
from prefix_rft_rllib.envs import TOY_BASE_MODEL

NUM_ROWS = 128
GROUP_SIZE = 8
NUM_MINIBATCHES = 2
MAX_RESPONSE_TOKENS = 120
LR = 1e-5
CLIP = 0.2
GRAD_CLIP = 1.0
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
FIELDS = (
    "model",
    "num_parameters",
    "threads",
    "clock",
    "contender",
    "repetition",
    "num_tokens",
    "seconds",
)


class Row(NamedTuple):
    """One rollout: ids of prompt and response, given response tokens, advantage."""

    prompt: list[int]
    response: list[int]
    num_prefix: int
    advantage: float


def draw_rows(vocab_size: int) -> list[Row]:
    """Rollouts of 100 to 184 tokens, all with an advantage; the first of a group has a prefix."""
    generator = np.random.default_rng(0)

    def draw_ids(low: int, high: int) -> list[int]:
        return generator.integers(0, vocab_size, generator.integers(low, high)).tolist()

    rows = []
    for _ in range(NUM_ROWS // GROUP_SIZE):
        prompt = draw_ids(40, 65)
        num_right = int(generator.integers(1, GROUP_SIZE))
        for member in range(GROUP_SIZE):
            response = draw_ids(60, MAX_RESPONSE_TOKENS + 1)
            num_prefix = 0 if member else int(generator.integers(1, len(response)))
            advantage = (member < num_right) - num_right / GROUP_SIZE
            rows.append(Row(prompt, response, num_prefix, advantage))
    return rows


def episodes_of(rows: list[Row]) -> list[SingleAgentEpisode]:
    """The rows as the learner gets them."""
    episodes = []
    for index, row in enumerate(rows):
        logps = np.full(len(row.response), -1.0)
        logps[: row.num_prefix] = np.nan
        custom_data = {
            row_data.ROLLOUT: PlannedRollout(
                problem_id="p",
                group_id=index // GROUP_SIZE,
                member=index % GROUP_SIZE,
                seed=0,
                num_prefix_tokens=row.num_prefix,
            ),
            row_data.IS_DEMONSTRATION: False,
            row_data.IS_MEMBER: True,
            row_data.ADVANTAGE: row.advantage,
            row_data.ROW_INDEX: index,
            row_data.ROW_KEY: index,
            row_data.MINIBATCH: index * NUM_MINIBATCHES // NUM_ROWS,
            # As in training by default: prefix rollouts, and all of two groups.
            row_data.IS_LOGGED: row.num_prefix > 0 or index < 2 * GROUP_SIZE,
        }
        episodes.append(
            row_data.build_episode(row.prompt, row.response, logps=logps, custom_data=custom_data)
        )
    return episodes


class LearnerUpdate:
    """The learner of this package, alone in this process."""

    def __init__(self, model_path: str, max_tokens: int) -> None:
        config = PrefixRFTConfig().environment(
            "PrefixRFT/ToyArithmetic-v0",
            env_config={"max_response_tokens": MAX_RESPONSE_TOKENS},
        )
        config.training(
            model_path=model_path,
            group_size=GROUP_SIZE,
            num_problems_per_iteration=NUM_ROWS // GROUP_SIZE,
            num_problems_per_minibatch=NUM_ROWS // GROUP_SIZE // NUM_MINIBATCHES,
            lr=LR,
            grad_clip=GRAD_CLIP,
            clip_param=CLIP,
            max_tokens_per_microbatch=max_tokens,
        )
        config.validate()
        space = gym.spaces.Discrete(2)  # not read by the module
        self._learner = config.build_learner(spaces={DEFAULT_MODULE_ID: (space, space)})
        self.model = self._learner.module[DEFAULT_MODULE_ID].lm
        self._is_deterministic = torch.are_deterministic_algorithms_enabled()

    def run(self, rows: list[SingleAgentEpisode]) -> None:
        """One update."""
        torch.use_deterministic_algorithms(self._is_deterministic)
        self._learner.update(
            training_data=row_data.WholeSequences(episodes=rows),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 0},
            num_epochs=1,
            iteration=0,
        )


class Micro(NamedTuple):
    """Rows that run together; tensors over response tokens are flat, row after row."""

    rows: list[int]
    ids: Tensor
    before: Tensor
    targets: Tensor


class PlainLoop:
    """What one would write for this model, this loss and nothing else."""

    def __init__(self, model_path: str, max_tokens: int) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, weight_decay=0.0)
        self._max_tokens = max_tokens
        self._logp: list[Tensor] = []
        self._entropy: list[Tensor] = []

    def run(self, rows: list[Row]) -> None:
        """The same work as one update."""
        torch.use_deterministic_algorithms(False)  # PyTorch's default; RLlib's may be another
        self._look_back(rows)
        self._steps(rows)

    def run_without_pass(self, rows: list[Row]) -> None:
        """The steps alone, at the old policy of the last `run`."""
        torch.use_deterministic_algorithms(False)
        self._steps(rows)

    def _steps(self, rows: list[Row]) -> None:
        size = len(rows) // NUM_MINIBATCHES
        for start in range(0, len(rows), size):
            self._step(rows, range(start, start + size))

    @torch.no_grad()
    def _look_back(self, rows: list[Row]) -> None:
        self._logp = [torch.empty(0)] * len(rows)
        self._entropy = [torch.empty(0)] * len(rows)
        for micro in self._micros(rows, range(len(rows))):
            log_probs = torch.log_softmax(self._logits(micro), dim=-1)
            logp = log_probs.gather(-1, micro.targets[:, None])[:, 0]
            entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
            lengths = [len(rows[row].response) for row in micro.rows]
            pairs = zip(logp.split(lengths), entropy.split(lengths), strict=True)
            for row, values in zip(micro.rows, pairs, strict=True):
                self._logp[row], self._entropy[row] = values

    def _step(self, rows: list[Row], minibatch: range) -> None:
        weights = self._weights(rows, minibatch)
        self._optimizer.zero_grad()
        for micro in self._micros(rows, minibatch):
            logp = -torch.nn.functional.cross_entropy(
                self._logits(micro), micro.targets, reduction="none"
            )
            ratio = (logp - torch.cat([self._logp[row] for row in micro.rows])).exp()
            weight = torch.cat([weights[row] for row in micro.rows])
            clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
            (-torch.minimum(ratio * weight, clipped * weight).sum()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRAD_CLIP)
        self._optimizer.step()

    def _weights(self, rows: list[Row], minibatch: range) -> dict[int, Tensor]:
        """Advantages over rows times longest response; prefix tokens of low entropy get 0."""
        prefixes = torch.cat([self._entropy[row][: rows[row].num_prefix] for row in minibatch])
        num_kept = -(-len(prefixes) * 20 // 100)
        threshold = prefixes.topk(num_kept).values[-1]
        weights = {}
        for row in minibatch:
            value = rows[row].advantage / (len(minibatch) * MAX_RESPONSE_TOKENS)
            weights[row] = torch.full((len(rows[row].response),), value)
            num_prefix = rows[row].num_prefix
            weights[row][:num_prefix][self._entropy[row][:num_prefix] < threshold] = 0.0
        return weights

    def _logits(self, micro: Micro) -> Tensor:
        hidden = self.model.model(micro.ids, use_cache=False).last_hidden_state
        return self.model.lm_head(hidden[micro.before])

    def _micros(self, rows: list[Row], indices: range) -> Iterator[Micro]:
        """Rows of similar length, the longest first, as many as fit into the budget."""
        lengths = {row: len(rows[row].prompt) + len(rows[row].response) for row in indices}
        order = sorted(indices, key=lambda row: (-lengths[row], row))
        while order:
            width = lengths[order[0]]
            count = max(1, self._max_tokens // width)
            chosen, order = order[:count], order[count:]
            ids = torch.zeros(len(chosen), width, dtype=torch.int64)
            before = torch.zeros(len(chosen), width, dtype=torch.bool)
            for place, row in enumerate(chosen):
                ids[place, : lengths[row]] = torch.tensor(rows[row].prompt + rows[row].response)
                before[place, len(rows[row].prompt) - 1 : lengths[row] - 1] = True
            targets = torch.tensor([token for row in chosen for token in rows[row].response])
            yield Micro(chosen, ids, before, targets)


def measure(
    contenders: dict[str, Callable[[], None]], num_repetitions: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each repetition, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(num_repetitions):
        for name, run in contenders.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return seconds


def largest_difference(one: torch.nn.Module, other: torch.nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def run_case(args: argparse.Namespace, name: str, model_path: str) -> list[dict[str, object]]:
    learner = LearnerUpdate(model_path, args.max_tokens_per_microbatch)
    loop = PlainLoop(model_path, args.max_tokens_per_microbatch)
    rows = draw_rows(loop.model.config.vocab_size)
    learner.run(episodes_of(rows))
    loop.run(rows)
    difference = largest_difference(learner.model, loop.model)
    print(f"{name}: largest difference of a weight after the first update {difference:.1e}")
    # Two steps of AdamW move a weight by up to 2 LR; near-zero gradients may differ in sign.
    assert difference <= 4 * LR, "learner and loop do other work"
    alone = PlainLoop(model_path, args.max_tokens_per_microbatch)
    alone.run(rows)
    episodes = episodes_of(rows)
    seconds = measure(
        {
            "update": lambda: learner.run(episodes),
            "loop": lambda: loop.run(rows),
            "loop_without_pass": lambda: alone.run_without_pass(rows),
        },
        args.num_repetitions,
        CLOCKS[args.clock],
    )
    num_tokens = sum(len(row.prompt) + len(row.response) for row in rows)
    medians = {contender: statistics.median(values) for contender, values in seconds.items()}
    for contender, median in medians.items():
        print(
            f"{name}  {contender:18s} {num_tokens / median:8.0f} tokens/s  "
            f"update is {median / medians['update']:.3f} times as fast"
        )
    settings = (name, loop.model.num_parameters(), args.threads, args.clock)
    return [
        dict(zip(FIELDS, (*settings, contender, index, num_tokens, round(value, 4)), strict=True))
        for contender, values in seconds.items()
        for index, value in enumerate(values)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--num-repetitions", type=int, default=7)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--max-tokens-per-microbatch", type=int, default=16384)
    parser.add_argument("--model", choices=["toy_base_model", "random_10m"], default=None)
    parser.add_argument("--out", type=Path, default=None, help="CSV file to write")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        random_lm(qwen_config("10M")).save_pretrained(directory)
        AutoTokenizer.from_pretrained(TOY_BASE_MODEL).save_pretrained(directory)
        for name, path in {"toy_base_model": str(TOY_BASE_MODEL), "random_10m": directory}.items():
            if args.model in (None, name):
                rows += run_case(args, name, path)
    write_csv(args.out, rows)


if __name__ == "__main__":
    main()
