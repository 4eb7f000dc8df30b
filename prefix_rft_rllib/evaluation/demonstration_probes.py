"""Demonstrations whose loss is watched during training (Prefix-RFT, Fig. 3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prefix_rft_rllib import metrics
from prefix_rft_rllib.basics.random_draws import stable_hash
from prefix_rft_rllib.envs.problems import TRAIN, Problem, ProblemSet


@dataclass(frozen=True)
class Probe:
    """The first demonstration of some problems of one set.

    Attributes:
        name: "train", or the held-out set.
        rows: Prompt and demonstration of each problem as token ids, the demonstration with its end
            token. Pairs of shapes (P,) and (R,), int32.
    """

    name: str
    rows: Sequence[tuple[np.ndarray, np.ndarray]]


def chosen_probes(
    problem_set: ProblemSet, counts: Mapping[str, int], seed: int
) -> tuple[Probe, ...]:
    """Choose problems whose demonstrations are watched.

    A problem is chosen by a hash of seed and id: the choice depends on nothing else, and a larger
    number chooses a superset.

    Args:
        problem_set: The run's problems.
        counts: `demonstration_probes`: how many problems of each set.
        seed: Of the run.

    Returns:
        One probe a set.

    Raises:
        ValueError: If a set has fewer problems with a demonstration.
    """
    return tuple(_chosen(problem_set, name, count, seed) for name, count in counts.items())


def _chosen(problem_set: ProblemSet, name: str, count: int, seed: int) -> Probe:
    problems: Sequence[Problem]
    if name == TRAIN:
        problems = problem_set.train_with_demonstration
    else:
        problems = [p for p in problem_set.held_out.get(name, ()) if p.demonstration_ids]
    if len(problems) < count:
        raise ValueError(
            f"`demonstration_probes[{name!r}]` is {count}, but {len(problems)} problems of this "
            "set have a demonstration that fits. Take at most so many."
        )
    drawn = sorted(problems, key=lambda p: stable_hash("demonstration probe", seed, p.problem_id))
    rows = [
        (np.array(p.prompt_ids, np.int32), np.array(p.demonstration_ids[0], np.int32))
        for p in drawn[:count]
    ]
    return Probe(name, rows)


def probe_results(probe: Probe, losses: Sequence[float]) -> dict[str, float]:
    """Turn the losses of a probe's demonstrations into what is reported.

    Args:
        probe: The demonstrations.
        losses: -log pi of each whole one, nats.

    Returns:
        `metrics.DEMONSTRATION_NLL_PER_TOKEN`, a mean over tokens; `DEMONSTRATION_NLL`, a mean over
        demonstrations; and `NUM_DEMONSTRATIONS`.
    """
    num_tokens = sum(len(demonstration) for _, demonstration in probe.rows)
    return {
        metrics.DEMONSTRATION_NLL_PER_TOKEN: float(sum(losses)) / num_tokens,
        metrics.DEMONSTRATION_NLL: float(sum(losses)) / len(losses),
        metrics.NUM_DEMONSTRATIONS: len(losses),
    }
