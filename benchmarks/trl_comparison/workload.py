"""What both programs are given: a model, prompts and rewards. Needs neither TRL nor this project.

A workload is a directory: `model/` (a Llama in Hugging Face form with its tokenizer),
`problems.jsonl` and `workload.json`. The end token of its tokenizer is one that the model all but
never samples, so every response has the length limit.
"""

import csv
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

SILENT = "silent"
"""Answer of the problems whose rollouts all have the same reward."""
BREAKDOWN = ("generation_s", "old_logps_s", "update_s", "other_s")
"""Parts of an iteration; empty in the CSV where a program does not tell them apart."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """One comparison.

    Attributes:
        directory: Where its files are.
        num_prompts: Problems of every iteration; the same ones each time.
        group_size: Rollouts of a problem.
        num_steps: Optimizer steps of an iteration.
        num_new_tokens: Length of every response.
    """

    directory: Path
    num_prompts: int = 16
    group_size: int = 8
    num_steps: int = 2
    num_new_tokens: int = 128

    @property
    def model_dir(self) -> Path:
        """Model and tokenizer."""
        return self.directory / "model"

    @property
    def problems_file(self) -> Path:
        """A row for every problem: `prompt`, `answer` and `id`."""
        return self.directory / "problems.jsonl"

    @property
    def num_rows(self) -> int:
        """Rollouts of an iteration."""
        return self.num_prompts * self.group_size

    def save(self) -> None:
        """Write the settings into the directory."""
        values = dataclasses.asdict(self) | {"directory": str(self.directory)}
        (self.directory / "workload.json").write_text(json.dumps(values, indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the settings of a directory."""
        values = json.loads((directory / "workload.json").read_text())
        return cls(**values | {"directory": directory})


def reward(response: str, answer: str) -> float:
    """A cheap reward in [0, 1): equal for all responses to silent problems, else a hash."""
    if answer == SILENT:
        return 0.5
    return int.from_bytes(hashlib.blake2b(response.encode(), digest_size=6).digest()) / 2**48


def verify(response: str, problem: Any) -> float:
    """`reward` as a verifier of this project."""
    return reward(response, problem.answer)


def trl_reward(completions: Sequence[str], answer: Sequence[str], **_: Any) -> list[float]:
    """`reward` as a reward function of TRL."""
    return [reward(text, gold) for text, gold in zip(completions, answer, strict=True)]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of equal keys as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read what `write_rows` wrote."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
