"""Tables of finished runs: figures worked out by hand, and runs that must not be mixed."""

import csv
import json
from pathlib import Path

import pytest
import word_problems_tables as tables

from prefix_rft_rllib.evaluation.completions import CompletionsFile
from tests.evaluation.completion_cases import completion

PROBLEMS = [f"p{number}" for number in range(8)]


def estimate(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "num_problems": 8}


def made_run(directory: Path, method: str, solved: int, **changes) -> Path:
    """A run whose model solves the first problems greedily; the base model solves the first."""
    directory.mkdir(parents=True)
    results = {"overall": {"greedy_pass@1": estimate(0.125), "greedy_truncated_fraction": {}}}
    test = {"difference": estimate(0.5), "p_value": 0.125, "num_better": 4, "num_worse": 0}
    after = {"overall": {"greedy_pass@1": estimate(solved / 8)}, "comparison": {"greedy": test}}
    summary = {"method": method, "seed": 0, "data": {"svamp": "abc"}, "num_rollouts": 64}
    summary |= {"num_eval_problems": 8, "num_eval_samples": 0}
    summary |= {"before": {"svamp": results}, "after": {"svamp": after}, **changes}
    (directory / "summary.json").write_text(json.dumps(summary))
    rows = [
        {"training_iteration": i, "time/iteration": 900.0, "rollouts/reward_plain_mean": i / 4}
        for i in (1, 2)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (directory / "metrics.jsonl").write_text(text)
    for when, num in (("before", 1), ("after", solved)):
        path = directory / "evaluation" / when / "svamp" / "svamp.jsonl"
        with CompletionsFile(path, {"model": method}) as file:
            file.append(
                [
                    completion(name, None, is_correct=i < num, response=f"a\x1b[31m\n# {name}")
                    for i, name in enumerate(PROBLEMS)
                ]
            )
    return directory


def test_the_page_has_results_costs_paired_tests_and_answers(tmp_path):
    runs = [
        made_run(tmp_path / "one", "prefix_rft", 7),
        made_run(tmp_path / "two", "rft", 1, num_rollouts=0),
    ]
    tables.main([*map(str, runs), f"--out={tmp_path / 'real'}"])
    page = (tmp_path / "real_tables.md").read_text()
    assert "| before training |  |  | 0.125 (0.025 to 0.225) |" in page
    assert "| Prefix-RFT, seed 0 | 64 | 0.50 | 0.875 (0.775 to 0.975) |" in page
    assert "| RFT, seed 0 | 0 | 0.50 | 0.125 (0.025 to 0.225) |" in page
    first = "| Prefix-RFT, seed 0 | base | svamp | greedy | 0.500 (0.400 to 0.600) | 4 / 0 | 0.12 |"
    assert first in page
    # McNemar: six problems that one side alone solves, all ours: 2 / 2**6.
    assert "| Prefix-RFT, seed 0 | RFT, seed 0 | svamp | greedy | 0.750 (" in page
    assert "| 6 / 0 | 0.031 |" in page
    assert page.count("`p0`") == page.count("`p1`") == 1
    assert "`p2`" not in page
    assert '    RFT, seed 0: WRONG\n        "a\\u001b[31m\\n# p1"\n' in page
    assert "\x1b" not in page
    assert "\n# p" not in page, "what a model wrote is no heading"
    rows = list(csv.DictReader((tmp_path / "real_curves.csv").open()))
    assert [row["rollouts/reward_plain_mean"] for row in rows] == ["0.25", "0.5"] * 2
    assert (tmp_path / "real_curves.png").stat().st_size > 1000


def test_runs_of_different_seeds_are_not_compared(tmp_path):
    runs = [made_run(tmp_path / str(seed), "rft", 1, seed=seed) for seed in (0, 1)]
    tables.main([*map(str, runs), f"--out={tmp_path / 'real'}"])
    assert "| RFT, seed 0 | RFT, seed 1 |" not in (tmp_path / "real_tables.md").read_text()


def test_runs_that_were_started_differently_or_have_not_ended_are_refused(tmp_path, capsys):
    one = made_run(tmp_path / "one", "rft", 1)
    other = made_run(tmp_path / "two", "sft", 1, data={"svamp": "abd"})
    unfinished = tmp_path / "three"
    unfinished.mkdir()
    for second, message in ((other, "was started with data"), (unfinished, "has no summary.json")):
        with pytest.raises(SystemExit):
            tables.main([str(one), str(second), f"--out={tmp_path / 'real'}"])
        assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("real*"))
