"""Two files of completions of the same problems: which model is better?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefix_rft_rllib.basics.text import first_of
from prefix_rft_rllib.evaluation.completions import (
    Completion,
    ReadCompletions,
    differences,
    read_completions,
)
from prefix_rft_rllib.evaluation.paired_tests import compare_averages, compare_greedy

_OF_MODELS = ("model", "model_files", "prompts", "end_tokens")
"""Entries of a fingerprint that belong to the model, and differ between two of them."""


def read_other(path: Path, hashes: Mapping[str, str]) -> ReadCompletions:
    """Read another model's completions, before anything is asked.

    Args:
        path: The file.
        hashes: `problem_hash` of each of our problems, by id.

    Returns:
        What it holds.

    Raises:
        ValueError: If the file is none of completions, or of other problems; it is said which.
    """
    if not path.is_file():
        raise ValueError(f"`compare`: there is no file {str(path)!r}.")
    read = read_completions(path)
    theirs = {c.problem_id: c.problem_hash for c in read.by_question.values()}
    both = hashes.keys() & theirs.keys()
    for rest, where in (
        (hashes.keys() - both, f"are asked here and are not in {path}"),
        (theirs.keys() - both, f"are in {path} and are not asked here"),
        (
            {i for i in both if hashes[i] != theirs[i]},
            f"have another text or gold answer in {path}",
        ),
    ):
        if rest:
            raise ValueError(
                f"{len(rest)} problems {where}: {first_of(sorted(rest), 3)}. A paired comparison "
                "needs the same problems on both sides: evaluate both models on one file, with one "
                "`num_problems`, to the end."
            )
    return read


def compare_completions(
    ours: Sequence[Completion], fingerprint: Mapping[str, Any], other: ReadCompletions
) -> dict[str, Any]:
    """Compare our completions with those of another file, problem by problem.

    Greedy attempts by McNemar's exact test; sampled ones by a permutation test of each problem's
    share of right attempts, of which the two sides may have different numbers.

    Args:
        ours: What counts of our evaluation.
        fingerprint: Ours.
        other: From `read_other`.

    Returns:
        Plain data: `other` (its model), `settings_that_differ`, and for `greedy` and `sampled`, as
        far as both sides have them, the fields of `PairedTest`.

    Raises:
        ValueError: If a side lacks attempts at some problems, or the sides have nothing in common.
    """
    theirs = list(other.by_question.values())
    settings = [
        {name: value for name, value in entries.items() if name not in _OF_MODELS}
        for entries in (other.fingerprint, fingerprint)
    ]
    results: dict[str, Any] = {
        "other": str(other.fingerprint.get("model")),
        "settings_that_differ": differences(*settings),
    }
    sides = {"ours": ours, "theirs": theirs}
    greedy = [_rates([c for c in side if c.seed is None]) for side in sides.values()]
    sampled = [_rates([c for c in side if c.seed is not None]) for side in sides.values()]
    for name, pair, compare in (
        ("greedy", greedy, compare_greedy),
        ("sampled", sampled, compare_averages),
    ):
        if all(pair):
            _check_complete(sides, name)
            results[name] = asdict(compare(*pair))
    if not all(greedy) and not all(sampled):
        raise ValueError(
            "There is nothing to compare: one side has greedy attempts alone, the other sampled "
            "ones alone. Ask both sides the same way."
        )
    return results


def _rates(completions: Sequence[Completion]) -> dict[str, float]:
    """By problem the share of right attempts."""
    right: dict[str, list[bool]] = {}
    for completion in completions:
        right.setdefault(completion.problem_id, []).append(completion.is_correct)
    return {problem_id: sum(row) / len(row) for problem_id, row in right.items()}


def _check_complete(sides: Mapping[str, Sequence[Completion]], name: str) -> None:
    """Check that each side has equally many attempts of a kind at all its problems."""
    for side, completions in sides.items():
        counts = dict.fromkeys((c.problem_id for c in completions), 0)
        for completion in completions:
            counts[completion.problem_id] += (completion.seed is None) == (name == "greedy")
        fewest = min(counts, key=lambda problem_id: counts[problem_id])
        if counts[fewest] < max(counts.values()):
            raise ValueError(
                f"`{side}` has {counts[fewest]} {name} attempts at problem {fewest!r} and "
                f"{max(counts.values())} at others: its evaluation did not end. Let it end first."
            )
