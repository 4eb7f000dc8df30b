"""Batches of whole groups whose advantages come from rewards, by a method's own rule."""

import dataclasses
import math

import numpy as np
import torch
from hypothesis import strategies as st

from tests.token_batches import make_columns


def credited(method, groups, seed=0, entropies=None):
    """Columns of groups, credited as the algorithm does.

    Args:
        method: The method; its advantage sees the rewards of one group at a time.
        groups: Lists of (picture, reward); the reward of a plain demonstration row is None.
        seed: Of all that the pictures do not tell.
        entropies: Per row and token; few different values at random by default.

    Returns:
        The columns.
    """
    pictures, advantages = [], []
    for group in groups:
        members = [(picture, reward) for picture, reward in group if reward is not None]
        given_credit = iter(
            method.advantage(
                [reward for _, reward in members],
                ["p" in picture or "D" in picture for picture, _ in members],
            )
            if members
            else []
        )
        for picture, reward in group:
            pictures.append(picture)
            advantages.append(0.0 if reward is None else next(given_credit))
    if entropies is None:
        generator = np.random.default_rng(seed)
        entropies = [generator.integers(0, 4, len(picture)) * 0.5 for picture in pictures]
    return make_columns(pictures, advantages, entropies, seed)


def log_table(columns, rows):
    """log p for given p, row by row; 0 where p is None and in the padding. Shape (B, T)."""
    table = torch.zeros_like(columns.old_logp)
    for row, values in enumerate(rows):
        for position, p in enumerate(values):
            table[row, position] = 0.0 if p is None else math.log(p)
    return table


def sampled_at(columns, rows):
    """The same rows with log p for given p as `old_logp`."""
    return dataclasses.replace(columns, old_logp=log_table(columns, rows))


@st.composite
def groups_for(draw, method, group_size=3):
    """Strategy: one to three groups with the kinds of rows that a method trains on."""
    rewards = st.sampled_from([0.0, 0.0, 1.0, 0.25])
    rows = method.demonstration_rows
    groups = []
    for _ in range(draw(st.integers(1, 3))):
        prompt = "x" * draw(st.integers(1, 3))
        num_rollouts = method.num_rollouts(group_size)
        hint = "p" * draw(st.integers(0, 4))
        group = []
        for member in range(num_rollouts):
            has_prefix = method.prefix_sampler.draw_member(member) is not None
            sampled = "r" * draw(st.integers(1, 5))
            group.append((prompt + (hint if has_prefix else "") + sampled, draw(rewards)))
        for _ in range(rows.num_rows):
            letter = "D" if rows.is_member else "d"
            reward = draw(rewards) if rows.is_member else None
            group.append((prompt + letter * draw(st.integers(1, 5)), reward))
        if not group:
            group.append((prompt + "d" * draw(st.integers(1, 5)), None))
        groups.append(group)
    return groups
