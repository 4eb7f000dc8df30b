"""Rollout records, and runs read back, for the tests of what a run writes."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from prefix_rft_rllib.runs.rollout_records import RolloutRecord
from prefix_rft_rllib.runs.run_directory import RunDirectory


class CharacterTokenizer:
    """Token ids are code points."""

    def decode(self, token_ids: list[int]) -> str:
        return "".join(map(chr, token_ids))


def record(**changes: object) -> RolloutRecord:
    values: dict = {
        "iteration": 3,
        "problem_id": "p1",
        "group_id": 7,
        "member": 0,
        "demonstration_index": 1,
        "prefix_fraction": 0.1 + 0.2,
        "drawn_prefix_tokens": 3,
        "num_prefix_tokens": 2,
        "was_cut": True,
        "window_low": 0.05,
        "window_high": 0.625,
        "reward": 1.0,
        "verdict": "CORRECT",
        "finish_reason": "stop",
        "advantage": 0.875,
        "weights_seq_no": 4,
        "weight_staleness": 1,
        "minibatch": 1,
        "prompt_ids": [72, 105],
        "response_ids": [97, 98, 99, 100, 101],
        "region": ["prefix"] * 2 + ["response"] * 3,
        "entropy": np.array([0.1, 1 / 3, 2, 0, 1e-30], np.float32).tolist(),
        "old_logp": np.array([-0.1, -1e-8, -20, 0, -math.inf], np.float32).tolist(),
        "engine_logp": [math.nan, math.nan, -0.5, -0.25, -0.125],
        "weight": [0.0, 0.875, 0.875, 0.875, 0.875],
        "kept": [False, True, True, True, True],
    }
    return RolloutRecord(**values | changes)


def as_comparable(value: object) -> object:
    """NaN is unlike itself; its name is not."""
    if isinstance(value, list):
        return [as_comparable(item) for item in value]
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def as_dict(rollout: RolloutRecord) -> dict:
    return {name: as_comparable(v) for name, v in dataclasses.asdict(rollout).items()}


def events_of(path: Path) -> EventAccumulator:
    # Nothing purged, no samples left out: what the files hold is what is compared.
    limits = {"scalars": 0, "tensors": 0}
    return EventAccumulator(str(path), limits, purge_orphaned_data=False).Reload()


def scalars_of(path: Path) -> dict[int, dict[str, float]]:
    events = events_of(path)
    rows: dict[int, dict[str, float]] = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            assert tag not in rows.setdefault(event.step, {}), "a point was written twice"
            rows[event.step][tag] = event.value
    return rows


def texts_of(path: Path, tag: str) -> list[str]:
    tensors = events_of(path).Tensors(f"{tag}/text_summary")
    return [make_ndarray(event.tensor_proto).item().decode() for event in tensors]


def write_iterations(run: RunDirectory, numbers: range) -> None:
    for n in numbers:
        run.write_rollouts(n, [record(iteration=n)], CharacterTokenizer())
        run.write_minibatches(n, [{"minibatch": 0, "loss": 0.5}, {"minibatch": 1, "loss": n}])
        run.write_metrics(n, {"rollouts/reward_mean": n / 3, "time/sync": 0.25})


def files_of(path: Path) -> dict[str, bytes]:
    """Everything but the event files, whose records hold the time of writing."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and "tfevents" not in file.name
    }


def other_writer(run_dir) -> str:
    """What another process is told that would write into a run directory; nothing if it may."""
    program = "import sys, pathlib; from prefix_rft_rllib.runs.one_writer import OneWriter; "
    program += "OneWriter(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", program, str(run_dir)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr
