"""Which problems are held out, and which training problems keep their demonstrations.

Both go by a hash of the problem's id, so that every process chooses the same problems, whatever
the order of the rows.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from prefix_rft_rllib.envs.problems.problem import TRAIN, Problem

logger = logging.getLogger(__name__)

# A hash of the id alone decides what is held out. Ranking by the same hash would tie the two
# together: what is not held out has large hashes only.
_DEMONSTRATION_SALT = "demonstration_fraction\0"
_NUM_EXACT_DECIMALS = 9  # 0.07 * 100 is 7.000000000000001 and means 7


def split_off(problems: Sequence[Problem], held_out_fraction: float) -> list[Problem]:
    """Put a share of the problems into the set "held_out".

    Args:
        problems: The problems of `data`, in file order.
        held_out_fraction: Share in [0, 1). A larger one holds out a superset.

    Returns:
        All problems, training problems first, each part in file order.
    """
    split = [
        replace(p, split="held_out") if _hash_share(p.problem_id) < held_out_fraction else p
        for p in problems
    ]
    return sorted(split, key=lambda p: p.split != TRAIN)


def keep_demonstrations(
    problems: Sequence[Problem], demonstration_fraction: float, counts: Counter[str]
) -> list[Problem]:
    """Leave the demonstrations of all but a share of the training problems out.

    Args:
        problems: Problems after filters and split; only training problems are changed.
        demonstration_fraction: Share in [0, 1] of the training problems with a demonstration that
            keep all of theirs: `ceil(demonstration_fraction * N)` of N. A smaller share keeps a
            subset.
        counts: "demonstrations_left_out" is added to it if the share is below 1.

    Returns:
        All problems, in the same order.
    """
    if demonstration_fraction == 1:
        return list(problems)
    candidates = [p.problem_id for p in problems if p.split == TRAIN and p.demonstration_ids]
    num_kept = math.ceil(round(demonstration_fraction * len(candidates), _NUM_EXACT_DECIMALS))
    ranked = sorted(candidates, key=lambda name: (_hash_share(_DEMONSTRATION_SALT + name), name))
    left_out = set(ranked[num_kept:])
    counts["demonstrations_left_out"] += sum(
        len(p.demonstration_ids) for p in problems if p.problem_id in left_out
    )
    return [_without_demonstrations(p) if p.problem_id in left_out else p for p in problems]


def without_clashes(
    held_out: list[Problem], name: str, others: Sequence[Problem], counts: Counter[str]
) -> list[Problem]:
    """Make ids unique by the set's name where needed, and count problems also trained on.

    Args:
        held_out: Problems of an entry of `held_out_data`.
        name: Its name.
        others: All problems so far.
        counts: "also_in_train:name" is set in it if there are such problems.

    Returns:
        The held-out problems.
    """
    ids = {problem.problem_id for problem in others}
    train_prompts = {problem.prompt for problem in others if problem.split == TRAIN}
    num_seen = sum(problem.prompt in train_prompts for problem in held_out)
    if num_seen:
        counts[f"also_in_train:{name}"] = num_seen
        logger.warning(
            "%d of the %d held-out problems in %r are training problems too: their accuracy is "
            "no test.",
            num_seen,
            len(held_out),
            name,
        )
    renamed = []
    for problem in held_out:
        problem_id = problem.problem_id
        while problem_id in ids:
            problem_id = f"{name}/{problem_id}"
        ids.add(problem_id)
        renamed.append(replace(problem, problem_id=problem_id))
    return renamed


def _without_demonstrations(problem: Problem) -> Problem:
    return replace(problem, demonstration_ids=(), demonstration_texts=(), demonstration_sources=())


def _hash_share(text: str) -> float:
    """Map a text to [0, 1), evenly and for ever the same."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
