"""Small batches of token columns for tests, drawn as pictures.

One letter per token: x prompt, p prefix, r response, d demonstration, D demonstration that is a
member of its group, . padding.
"""

import dataclasses
import threading

import numpy as np
import torch
from hypothesis import strategies as st

from prefix_rft_rllib.core.token_selection import Collectives
from prefix_rft_rllib.core.tokens import Region, TokenColumns, pad_rows

LETTERS = {
    ".": Region.PADDING,
    "x": Region.PROMPT,
    "p": Region.PREFIX,
    "r": Region.RESPONSE,
    "d": Region.DEMONSTRATION,
    "D": Region.DEMONSTRATION,
}


def make_columns(pictures, advantages, entropies=None, seed=0, width=None, rewards=None):
    """Columns from one picture per row; what is not given is random."""
    generator = np.random.default_rng(seed)
    width = width or max(map(len, pictures))

    def column(make, pad_value, dtype):
        return pad_rows(
            [make(picture) for picture in pictures],
            pad_value=pad_value,
            dtype=dtype,
            num_positions=width,
        )

    def engine_logp(picture):
        return np.where(np.array(list(picture)) == "r", -1.0, np.nan)

    if entropies is None:
        entropies = [generator.uniform(0, 3, len(picture)) for picture in pictures]
    return TokenColumns(
        input_ids=column(lambda picture: generator.integers(0, 9, len(picture)), 0, torch.int64),
        region=column(lambda picture: [LETTERS[letter] for letter in picture], 0, torch.int8),
        advantage=torch.tensor(advantages, dtype=torch.float32),
        reward=torch.tensor(given_rewards(pictures, rewards, seed), dtype=torch.float32),
        row_index=torch.arange(len(pictures)),
        row_key=torch.from_numpy(generator.integers(0, 2**63, len(pictures))),
        is_member=torch.tensor(["d" not in picture for picture in pictures]),
        engine_logp=column(engine_logp, np.nan, torch.float32),
        old_logp=column(lambda picture: -generator.exponential(1, len(picture)), 0, torch.float32),
        entropy=pad_rows(entropies, pad_value=0, dtype=torch.float32, num_positions=width),
    )


def given_rewards(pictures, rewards, seed):
    """Rewards as given, or 0 and 1 at random; NaN for demonstrations that are no members."""
    drawn = (
        np.random.default_rng(seed).integers(0, 2, len(pictures)) if rewards is None else rewards
    )
    return [
        np.nan if "d" in picture else reward
        for picture, reward in zip(pictures, drawn, strict=True)
    ]


FILLERS = {"input_ids": 5, "region": int(Region.PADDING)}
"""What `widen` pads with; all other columns get NaN, which must never be read."""


def widen(columns, num_extra):
    """The same rows with more padding, filled with values that must never be read."""
    wide = {}
    for name, column in vars(columns).items():
        if column is not None and column.ndim == 2:
            value = FILLERS.get(name, float("nan"))
            filler = torch.full((column.shape[0], num_extra), value, dtype=column.dtype)
            wide[name] = torch.cat([column, filler], dim=1)
    return dataclasses.replace(columns, **wide)


def with_importance_weights(columns, seed=0):
    """The same rows with weights between 0.25 and 2 at sampled tokens, 1 elsewhere."""
    generator = np.random.default_rng(seed)
    drawn = torch.tensor(generator.uniform(0.25, 2, columns.region.shape), dtype=torch.float32)
    weights = torch.where(columns.is_response, drawn, 1.0)
    return dataclasses.replace(columns, importance_weight=weights)


@st.composite
def batches(draw, max_rows=7, importance=False):
    """Strategy: batches with all kinds of rows, ties in entropy, zero advantages included.

    Rollouts with and without prefix, demonstrations, and demonstrations that are group members,
    with an advantage. With `importance` some batches have importance weights.
    """
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from("rrdD"),
                st.integers(1, 3),
                st.integers(0, 6),
                st.integers(1, 6),
                st.sampled_from([0.0, 1.0, -0.5, 0.125, -1.25]),
            ),
            min_size=1,
            max_size=max_rows,
        )
    )
    pictures, advantages = [], []
    for kind, num_prompt, num_prefix, num_response, advantage in rows:
        prefix = "p" * num_prefix if kind == "r" else ""
        pictures.append("x" * num_prompt + prefix + kind * num_response)
        advantages.append(0.0 if kind == "d" else advantage)
    # A rollout, so that scales by the number of rollouts exist.
    pictures.append("xpr")
    advantages.append(1.0)
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    # Few different values: ties must occur.
    entropies = [generator.integers(0, 4, len(picture)) * 0.5 for picture in pictures]
    columns = make_columns(pictures, advantages, entropies, seed)
    if importance and draw(st.booleans()):
        columns = with_importance_weights(columns, seed)
    return columns


class ThreadPool(Collectives):
    """Learners as threads of one process, for tests of the global decisions."""

    def __init__(self, rank, shared, barrier):
        self.rank, self.shared, self.barrier = rank, shared, barrier

    def _exchange(self, value):
        self.shared[self.rank] = value
        self.barrier.wait(timeout=20)
        values = [self.shared[rank] for rank in range(self.barrier.parties)]
        self.barrier.wait(timeout=20)
        return values

    def all_gather_1d(self, values):
        return torch.cat(self._exchange(values))

    def sum(self, count):
        return sum(self._exchange(count))


def run_learners(shares, function):
    """Call `function(columns, collectives)` on one thread per share of the rows."""
    shared, barrier = {}, threading.Barrier(len(shares))
    results = [None] * len(shares)

    def work(rank):
        results[rank] = function(shares[rank], ThreadPool(rank, shared, barrier))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(shares))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None not in results
    return results
