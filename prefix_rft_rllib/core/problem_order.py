"""Which problems an iteration takes."""

from collections.abc import Collection

import numpy as np

from prefix_rft_rllib.basics.random_draws import stable_hash


def problem_indices(num_problems: int, num_taken: int, iteration: int, seed: int) -> list[int]:
    """Indices of the problems of one iteration.

    Problems are taken without replacement until all were met, then in a new order, without
    regard to the borders of iterations: a pure function of the arguments, nothing to save.

    Args:
        num_problems: Problems in the training set, at least 1.
        num_taken: Problems per iteration. More than `num_problems` repeats some.
        iteration: Training iteration, from 0.
        seed: Seed of the run.

    Returns:
        `num_taken` indices in [0, num_problems).
    """
    indices: list[int] = []
    position = iteration * num_taken
    while len(indices) < num_taken:
        epoch, start = divmod(position, num_problems)
        order = np.random.default_rng(stable_hash("problem_order", seed, epoch)).permutation(
            num_problems
        )
        taken = order[start : start + num_taken - len(indices)].tolist()
        indices += taken
        position += len(taken)
    return indices


def replacement_indices(
    num_problems: int, num_taken: int, met: Collection[int], key: tuple[int, ...]
) -> list[int]:
    """Indices of problems that take the place of others in an iteration.

    Args:
        num_problems: Problems in the training set, at least 1.
        num_taken: How many to take.
        met: Indices that the iteration has met already: taken only when no other is left.
        key: What the order is drawn from.

    Returns:
        `num_taken` indices in [0, num_problems), a pure function of the arguments.
    """
    order = np.random.default_rng(stable_hash("replacements", *key)).permutation(num_problems)
    known = set(met)
    ranked = sorted(order.tolist(), key=known.__contains__)
    return [ranked[number % num_problems] for number in range(num_taken)]
