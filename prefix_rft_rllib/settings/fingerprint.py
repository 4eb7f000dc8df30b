"""What the draws and rewards of a run depend on, as plain data that two runs can be compared by."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prefix_rft_rllib.basics.hub_models import model_directory
from prefix_rft_rllib.basics.text import short_repr
from prefix_rft_rllib.envs.problems import Problem, ProblemSet
from prefix_rft_rllib.methods import Method
from prefix_rft_rllib.settings.running_settings import FINGERPRINTED
from prefix_rft_rllib.settings.settings import Settings

NUM_BLOCKS, BLOCK_SIZE = 64, 4096
"""Blocks of each file of weights that are read, spread evenly, and their bytes."""
SHOWN = 200
"""Most characters of a value in a message."""


def fingerprint(config: Settings, method: Method, problem_set: ProblemSet) -> dict[str, Any]:
    """Describe what draws and rewards depend on.

    Paths are not part of it: data and model may have been moved. Of held-out problems nothing
    depends. Of the weights at `model_path` some blocks are read, not all.

    Args:
        config: The run's settings.
        method: Its method.
        problem_set: Its problems, loaded.

    Returns:
        Plain JSON data by the names of `FINGERPRINTED`.
    """
    own = vars(problem_set.settings)
    found = {
        **_data(problem_set.train),
        "end_tokens": sorted(map(int, problem_set.end_tokens.ids)),
        "model": _model(Path(model_directory(config.model_source))),
        "method": _method(method),
    }
    for name in FINGERPRINTED:
        if name not in found:
            found[name] = own[name] if name in own else getattr(config, name)
    assert found.keys() == set(FINGERPRINTED)
    return dict(json.loads(json.dumps(found, default=repr)))


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, str]:
    """Say what of two fingerprints differs.

    Args:
        theirs: Of a checkpoint.
        ours: Of this run.

    Returns:
        By the name of the entry a text with both values; of an entry with parts those that differ.
    """
    found = {}
    for name in dict.fromkeys([*theirs, *ours]):
        there, here = theirs.get(name), ours.get(name)
        if there != here:
            found[name] = "; ".join(_difference(name, there, here))
    return found


def _difference(name: str, there: Any, here: Any) -> Iterable[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for part in dict.fromkeys([*there, *here]):
            if there.get(part) != here.get(part):
                yield from _difference(f"{name}, {part}", there.get(part), here.get(part))
        return
    texts = (short_repr(value, SHOWN) for value in (there, here))
    yield "`{}` is {} there and {} here".format(name, *texts)


def _data(problems: Sequence[Problem]) -> dict[str, str]:
    """Hash what is drawn from: training problems, their demonstrations and their prompts."""
    data, demonstrations, prompts = (hashlib.sha256() for _ in range(3))
    num_demonstrations = 0
    for problem in problems:
        texts = (problem.problem_id, problem.domain, problem.prompt, problem.answer)
        row = [*texts, list(map(dict, problem.messages)), dict(problem.extra)]
        data.update(json.dumps(row, sort_keys=True, default=repr).encode())
        prompts.update(_bytes(problem.prompt_ids))
        for ids in problem.demonstration_ids:
            demonstrations.update(_bytes(ids))
        num_demonstrations += len(problem.demonstration_ids)
    return {
        "data": f"{len(problems)} problems, {data.hexdigest()[:16]}",
        "demonstrations": f"{num_demonstrations} of them, {demonstrations.hexdigest()[:16]}",
        "prompts": prompts.hexdigest()[:16],
    }


def _bytes(token_ids: Sequence[int]) -> bytes:
    return len(token_ids).to_bytes(4) + np.asarray(token_ids, "<i4").tobytes()


def _model(directory: Path) -> str:
    """Hash the configuration, and blocks of the weights that are spread over all of them."""
    found = hashlib.sha256((directory / "config.json").read_bytes())
    for path in sorted(directory.glob("*.safetensors")):
        size = path.stat().st_size
        found.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for number in range(NUM_BLOCKS):
                file.seek(number * max(0, size - BLOCK_SIZE) // (NUM_BLOCKS - 1))
                found.update(file.read(BLOCK_SIZE))
    return found.hexdigest()[:16]


def _method(method: Method) -> dict[str, Any]:
    """What of a method decides draws; values, selections and learning rates do not."""
    stages = {
        f"stage_{number}": {**_method(stage.method), "num_iterations": stage.num_iterations}
        for number, stage in enumerate(method.stages, 1)
    }
    step = method.after_step
    return {
        "name": method.name,
        "prefix_sampler": _text(method.prefix_sampler),
        "demonstration_rows": _text(method.demonstration_rows),
        "num_sampled": method.num_sampled,
        "buffer_size": step and step.buffer_size,
        **stages,
    }


def _text(piece: Any) -> str:
    """A piece as Python writes it, without places in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(piece))
