"""The page on the run directory says what the code says."""

import ast
import dataclasses
import re
from pathlib import Path

from prefix_rft_rllib import metrics
from prefix_rft_rllib.evaluation.demonstration_probes import Probe, probe_results
from prefix_rft_rllib.evaluation.held_out import evaluate_problems
from prefix_rft_rllib.runs.rollout_records import RolloutRecord
from prefix_rft_rllib.runs.rollout_report import imitation_metrics
from tests.evaluation.test_evaluation import TableAlgorithm, means, problems

DOCS = Path(__file__).parents[2] / "docs" / "run_directory.md"


def documented_rows(heading: str) -> dict[str, str]:
    """Name and meaning of every row of the table under a heading."""
    section = DOCS.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", section, flags=re.MULTILINE)
    return {name: meaning.replace("\\|", "|") for name, meaning in rows}


def defined_metrics() -> dict[str, str]:
    """Key and docstring of every metric, read from the source."""
    source = Path(metrics.__file__).read_text()
    lines = source.splitlines()
    folder, found = "", {}
    nodes = ast.parse(source).body
    for number, node in enumerate(nodes[:-1]):
        for line in lines[(nodes[number - 1].end_lineno if number else 0) : node.lineno]:
            under = re.match(r"# --- .*under `(.+?)/`", line)
            folder = under[1] if under else folder
        after = nodes[number + 1]
        is_text = isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(after, ast.Expr) and isinstance(node.value.value, str):
            found[f"{folder}/{node.value.value}"] = " ".join(after.value.value.split())
    return found


def evaluation_metrics(defined: dict[str, str]) -> dict[str, str]:
    """Key and meaning of every number that an evaluation of a set gives."""
    by_name = {key.rpartition("/")[2]: meaning for key, meaning in defined.items()}
    results = means(evaluate_problems(TableAlgorithm(), problems("a"), num_samples=2))
    results |= probe_results(Probe("train", [((1,), (2,))]), [0.5])
    names = [*results, metrics.VERDICTS]
    return {f"evaluation/<set>/{name}": by_name[name] for name in names}


def imitation_step_metrics(defined: dict[str, str]) -> dict[str, str]:
    """Key and meaning of every number of a separate step on failed problems."""
    step = dict.fromkeys(metrics.LEARNER_METRICS, 0.0)
    meanings = {
        name: defined.get(f"imitation_step/{name}") or defined[f"learner/{name}"]
        for name in imitation_metrics([], [step])
    }
    return {f"imitation_step/{name}": meaning for name, meaning in meanings.items()}


def test_the_documented_metrics_are_those_of_the_metrics_module():
    defined = defined_metrics()
    derived = evaluation_metrics(defined) | imitation_step_metrics(defined)
    assert documented_rows("Metrics") == defined | derived
    assert "imitation_step/grad_norm" in derived
    assert "rollouts/reward_mean" in defined
    assert "evaluation/<set>/avg_at_k" in defined


def test_the_documented_evaluation_metrics_are_those_of_an_evaluation():
    rows = documented_rows("Metrics")
    documented = {key: text for key, text in rows.items() if key.startswith("evaluation/")}
    assert documented == evaluation_metrics(defined_metrics())
    assert "evaluation/<set>/response_length_mean" in documented


def test_the_documented_fields_of_a_rollout_are_those_of_the_record():
    attributes = RolloutRecord.__doc__.split("Attributes:\n")[1]
    entries = re.findall(r"^        (\w+): (.*(?:\n {9,}.*)*)", attributes, flags=re.MULTILINE)
    documented = {name: " ".join(meaning.split()) for name, meaning in entries}
    fields = [field.name for field in dataclasses.fields(RolloutRecord)]
    assert sorted(documented) == sorted(fields)
    rows = documented_rows("Rollouts")
    assert {name: meaning.split(" | ")[0] for name, meaning in rows.items()} == documented
