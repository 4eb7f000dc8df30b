"""Two files of completions, compared problem by problem."""

import pytest
from scipy import stats

from prefix_rft_rllib.evaluation.comparison import compare_completions, read_other
from prefix_rft_rllib.evaluation.completions import CompletionsFile
from tests.evaluation.completion_cases import completion

FINGERPRINT = {"model": "other", "model_files": "ab", "temperature": 0.6}
IDS = [f"p{i}" for i in range(10)]


def rows_of(right: set[int], *, num_samples: int = 0, greedy: bool = True):
    """Greedy attempts, and samples that are all right or all wrong."""
    rows = []
    for number, name in enumerate(IDS):
        rows += [completion(name, None, is_correct=number in right)] if greedy else []
        rows += [completion(name, 0, m, is_correct=number in right) for m in range(num_samples)]
    return rows


def compared(ours, fingerprint, path):
    """Read and compare."""
    other = read_other(path, {c.problem_id: c.problem_hash for c in ours})
    return compare_completions(ours, fingerprint, other)


@pytest.fixture
def write(tmp_path):
    def write(rows):
        path = tmp_path / "other.jsonl"
        with CompletionsFile(path, FINGERPRINT) as file:
            file.append(rows)
        return path

    return write


def test_mcnemar_and_permutation_by_hand(write):
    # Ours alone solves 0 to 5, theirs alone 6: 6 of 7 one-sided problems.
    ours, theirs = set(range(6)), {6}
    path = write(rows_of(theirs, num_samples=4))
    found = compared(rows_of(ours, num_samples=2), FINGERPRINT, path)
    assert found["greedy"]["p_value"] == pytest.approx(stats.binomtest(6, 7).pvalue)
    # Of the 2**7 signs of seven equal differences 16 give a sum of 5 or more in size.
    assert found["sampled"]["p_value"] == pytest.approx(16 / 128)
    for kind in ("greedy", "sampled"):
        assert found[kind]["difference"]["mean"] == pytest.approx(0.5)
        assert (found[kind]["num_better"], found[kind]["num_worse"]) == (6, 1)
    assert found["other"] == "other"
    assert found["settings_that_differ"] == []


def test_what_was_asked_differently_is_said(write):
    path = write(rows_of({1}))
    settings = {**FINGERPRINT, "model": "ours", "model_files": "xy", "temperature": 1.0}
    found = compared(rows_of({2}), settings, path)
    assert found["settings_that_differ"] == ["`temperature` is 0.6 there and 1.0 now"]
    assert "sampled" not in found


def test_different_problems_are_an_error_that_says_which(write):
    path = write(rows_of({1}))
    ours = rows_of({1})
    with pytest.raises(ValueError, match=r"2 problems are in .*not asked here: p0, p1"):
        compared(ours[2:], FINGERPRINT, path)
    with pytest.raises(ValueError, match=r"1 problems are asked here .*: new"):
        compared([*ours, completion("new", None)], FINGERPRINT, path)
    changed = [*ours[1:], completion("p0", None, problem_hash="another")]
    with pytest.raises(ValueError, match=r"1 problems have another text or gold answer.*: p0"):
        compared(changed, FINGERPRINT, path)


def test_an_evaluation_that_did_not_end_is_not_compared(write):
    rows = rows_of({1}, num_samples=2)
    path = write(rows[:-1])
    with pytest.raises(ValueError, match="`theirs` has 1 sampled attempts at problem 'p9' and 2"):
        compared(rows, FINGERPRINT, path)


def test_files_with_nothing_in_common_are_an_error(write, tmp_path):
    path = write(rows_of({1}))
    with pytest.raises(ValueError, match="nothing to compare"):
        compared(rows_of({1}, num_samples=1, greedy=False), FINGERPRINT, path)
    with pytest.raises(ValueError, match="there is no file"):
        compared(rows_of({1}), FINGERPRINT, tmp_path / "missing.jsonl")
