"""What tests of the adapter for lm-evaluation-harness share."""

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefix_rft_rllib.engines import Engine, Generation

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"
FILTER = "flexible-extract"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the shared data in {DATA}")


def require_lm_eval() -> None:
    """Skip a module where lm-eval is missing, also in continuous integration.

    `make` leaves it out, with the 28 packages that it brings along: `make test-lm-eval` has it.
    """
    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip("lm-eval is not installed (make test-lm-eval)", allow_module_level=True)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines; returns the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def yaml_of_docs(file: Path) -> str:
    """The task that the page shows, reading another file."""
    text = re.search(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert "test: eval_gsm8k.jsonl" in text
    return text.replace("eval_gsm8k.jsonl", str(file))


def task_of_docs(file: Path, **changes: Any) -> dict[str, Any]:
    """The same as lm-eval reads it; its cache of data stands beside the file."""
    task = yaml.safe_load(yaml_of_docs(file))
    task["dataset_kwargs"]["cache_dir"] = str(file.parent / "cache")
    return {**task, **changes}


def run_lm_eval(model: Any, task: Mapping[str, Any], **options: Any) -> list[dict[str, Any]]:
    """Let lm-eval run one task; returns its samples by the order of the file."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)
    options = {"task_manager": manager, "bootstrap_iters": 0, **options}
    found = simple_evaluate(model=model, tasks=[dict(task)], **options)
    return sorted(found["samples"][task["task"]], key=lambda sample: sample["doc_id"])


class ScriptedEngine(Engine):
    """Answers each prompt with the text that is set for it.

    Args:
        config: A model's configuration.
        tokenizer: Its tokenizer.
        texts: Answers by the prompt's text.
    """

    def __init__(self, config: Any, tokenizer: Any, texts: Mapping[str, str]) -> None:
        super().__init__(config, [tokenizer.eos_token_id])
        self._tokenizer, self._texts = tokenizer, texts

    def load_weights(self, state_dict, version):
        raise AssertionError("it has no weights")

    def generate(self, requests):
        generations = []
        for request in requests:
            text = self._texts[self._tokenizer.decode(request.prompt_ids)]
            ids = self._tokenizer.encode(text + self._tokenizer.eos_token)
            generations.append(Generation(ids, [0.0] * len(ids), "stop"))
        return generations

    def close(self):
        pass
