"""What the run directory keeps of one rollout, and its JSON form."""

import dataclasses
import gzip
import json
import math
import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from prefix_rft_rllib.basics.whole_files import written_in_one_step

TOKEN_FLOATS = ("entropy", "old_logp", "engine_logp", "weight")
"""Fields with one float32 number per response token."""
TOKEN_INTEGERS = ("prompt_ids", "response_ids", "kept")
"""Fields with one whole number or bool per token."""
OPTIONAL = (*TOKEN_FLOATS, "kept", "verdict_details", "prompt_text", "prefix_text", "sampled_text")
"""Fields that a line of JSON leaves out when they are None; other fields are null."""


class Decoder(Protocol):
    """The part of a Hugging Face tokenizer that shows token ids as text."""

    def decode(self, token_ids: Any, /) -> str:
        """The text of the token ids, special tokens included."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutRecord:
    """One rollout, or one demonstration trained as a row of its own.

    Fields per token have one entry per id in `response_ids`, prefix included.

    Attributes:
        iteration: Training iteration as in RLlib's results, from 1.
        problem_id: The problem.
        group_id: Number of the problem's group in the iteration.
        member: Number of the rollout in its group, from 0; None for a row outside the group.
        demonstration_index: Which of the problem's demonstrations the prefix was cut from.
        prefix_fraction: The drawn share u of the demonstration; 0 without a prefix.
        drawn_prefix_tokens: floor(u * demonstration length), before any limit, tokens.
        num_prefix_tokens: Length of the prefix after all limits, tokens.
        was_cut: True if the prefix was shortened so that it ends before the answer.
        window_low: Low end of the interval u was drawn from; None without a draw.
        window_high: High end of that interval.
        reward: Sum of the episode's rewards.
        verdict: Name of the verifier's verdict, or "SCORED" when it gave a number; None for a
            demonstration row.
        verdict_details: What the verifier says beside the verdict, by name, for people: of code
            the first failing test and what came back; None where it says nothing.
        finish_reason: "stop" (end token) or "length" (budget spent); None for a demonstration row.
        advantage: Advantage of the rollout, the same at all its tokens.
        weights_seq_no: Number of the weights that sampled it; None for a demonstration row.
        weight_staleness: Updates between these weights and the ones that the iteration's update
            starts from, 0 on-policy; None for a demonstration row.
        prompt_ids: Token ids of the rendered prompt.
        response_ids: Token ids of the response: the prefix, then what was sampled.
        region: Per token "prefix", "response" or "demonstration". Runs of equal names in JSON.
        minibatch: Index of the iteration's minibatch the row was trained in.
        entropy: Per token: entropy of the old policy, nats.
        old_logp: Per token: log probability under the old policy, recomputed by the learner.
        engine_logp: Per token: log probability at which the engine sampled it; NaN where given.
        weight: Per token: weight in the loss before the rule's scale, in units of the advantage
            (1 for a demonstration row of SFT); 0 where a selection dropped the token.
        kept: Per token: whether the selections kept it.
        prompt_text: `prompt_ids` as text. Texts are for reading only: decoded with special
            tokens, part by part, so a character cut by the end of the prefix is not readable.
        prefix_text: The given part of `response_ids` as text.
        sampled_text: The rest of `response_ids` as text.
    """

    iteration: int
    problem_id: str
    group_id: int
    member: int | None
    demonstration_index: int | None = None
    prefix_fraction: float | None = None
    drawn_prefix_tokens: int = 0
    num_prefix_tokens: int = 0
    was_cut: bool = False
    window_low: float | None = None
    window_high: float | None = None
    reward: float
    verdict: str | None
    verdict_details: Mapping[str, Any] | None = None
    finish_reason: str | None
    advantage: float
    weights_seq_no: int | None
    weight_staleness: int | None = None
    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    region: Sequence[str]
    minibatch: int | None = None
    entropy: Sequence[float] | None = None
    old_logp: Sequence[float] | None = None
    engine_logp: Sequence[float] | None = None
    weight: Sequence[float] | None = None
    kept: Sequence[bool] | None = None
    prompt_text: str | None = None
    prefix_text: str | None = None
    sampled_text: str | None = None

    def __post_init__(self) -> None:
        for name in ("region", "kept", *TOKEN_FLOATS):
            values = getattr(self, name)
            assert values is None or len(values) == len(self.response_ids), (
                f"{name} has {len(values)} entries for {len(self.response_ids)} response tokens"
            )

    def with_texts(self, tokenizer: Decoder) -> Self:
        """This record with its token ids decoded.

        Args:
            tokenizer: The tokenizer of the ids.

        Returns:
            A new record with the three texts.
        """
        # Given tokens of a rollout are its prefix; a demonstration row is given as a whole.
        num_given = sum(name != "response" for name in self.region)
        return dataclasses.replace(
            self,
            prompt_text=tokenizer.decode(list(self.prompt_ids)),
            prefix_text=tokenizer.decode(list(self.response_ids[:num_given])),
            sampled_text=tokenizer.decode(list(self.response_ids[num_given:])),
        )

    def to_json(self) -> str:
        """One line of JSON, ASCII only; the fields of `OPTIONAL` that are None are left out.

        Numbers per token are float32 values in their shortest exact form; other numbers keep their
        full precision. NaN is null, infinities are the strings "Infinity" and "-Infinity".
        """
        data = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.name in OPTIONAL:
                continue
            if field.name == "region":
                value = [[name, len(list(run))] for name, run in groupby(value)]
            elif field.name in TOKEN_FLOATS:
                # str() of a float32 has the fewest digits that still name this float32.
                value = [json_number(float(str(v))) for v in np.asarray(value, np.float32)]
            elif field.name in TOKEN_INTEGERS:
                value = np.asarray(value, bool if field.name == "kept" else np.int64).tolist()
            else:
                value = json_value(value)
            data[field.name] = value
        return json.dumps(data, allow_nan=False)

    @classmethod
    def from_json(cls, line: str | bytes) -> Self:
        """The record that `to_json` wrote.

        Args:
            line: One line of a rollouts file.

        Returns:
            An equal record. Texts and ids are lists and strings; per-token floats are the exact
            float32 values.
        """
        data = json.loads(line)
        data["region"] = [name for name, length in data["region"] for _ in range(length)]
        for name in TOKEN_FLOATS:
            if name in data:
                numbers = [number_from_json(value) for value in data[name]]
                data[name] = np.array(numbers, np.float32).tolist()
        for name in ("reward", "advantage"):
            data[name] = number_from_json(data[name])
        return cls(**data)


def json_number(value: float | int) -> float | int | str | None:
    """A number as JSON can hold it: NaN is null, infinities are strings that float() reads."""
    if isinstance(value, int) or math.isfinite(value):
        return value
    return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def number_from_json(value: float | int | str | None) -> float | int:
    """The number that `json_number` turned into `value`."""
    if value is None:
        return math.nan
    return float(value) if isinstance(value, str) else value


def json_value(value: Any) -> Any:
    """Plain data that JSON can hold; what is no plain data becomes its `repr`.

    Args:
        value: Anything. Mappings and sequences are converted inside; keys become strings.

    Returns:
        Dicts, lists, strings, numbers, bools and None. No NaN and no infinity among them.
    """
    if isinstance(value, np.generic | np.ndarray):
        return json_value(value.tolist())
    if value is None or isinstance(value, bool | str):
        # Subclasses such as string enums become plain strings.
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return json_number(float(value))
    if isinstance(value, Mapping):
        return {k if isinstance(k, str) else repr(k): json_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return repr(value)


def write_rollouts_file(path: Path, records: Sequence[RolloutRecord]) -> None:
    """Write a rollouts file; a killed process leaves the old file or the new one, never a part.

    Args:
        path: The file, `.jsonl.gz`.
        records: One line each. Equal records give equal bytes.
    """
    # Level 1 takes a sixth of the default's time for an eighth more bytes.
    with (
        written_in_one_step(path) as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as compressed,
    ):
        for record in records:
            compressed.write(f"{record.to_json()}\n".encode("ascii"))


def read_rollouts(path: str | os.PathLike[str]) -> list[RolloutRecord]:
    """Read a rollouts file.

    Args:
        path: A `rollouts/iteration_*.jsonl.gz` file of a run directory.

    Returns:
        Its records, in the order they were written.
    """
    with gzip.open(path, "rb") as file:
        return [RolloutRecord.from_json(line) for line in file]
