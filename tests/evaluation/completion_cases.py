"""Completions for tests, without a model."""

from prefix_rft_rllib.evaluation.completions import Completion


def completion(problem_id: str, seed: int | None, member: int = 0, **changes) -> Completion:
    """One completion; right unless `is_correct` says otherwise."""
    is_correct = changes.pop("is_correct", True)
    values = {
        "problem_hash": f"hash of {problem_id}",
        "response": r"so \boxed{7}",
        "num_tokens": 4,
        "is_truncated": False,
        "verdict": "CORRECT" if is_correct else "WRONG",
        "reward": float(is_correct),
        "is_correct": is_correct,
        "details": {},
    }
    names = {"problem_id": problem_id, "seed": seed, "member": member}
    return Completion(**{**names, **values, **changes})
