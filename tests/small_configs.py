"""Settings for algorithm tests, and verifiers that give an untrained model something to learn."""

from collections.abc import Mapping
from typing import Any

import pytest

from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.envs.verifiers.verdict import Graded, Verdict

MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS = 64, 48
HALF_RIGHT = "tests.small_configs:half_right"
SELDOM_RIGHT = "tests.small_configs:seldom_right"
NEVER_RIGHT = "tests.small_configs:never_right"
BROKEN = "tests.small_configs:broken"
TALKATIVE = "tests.small_configs:talkative"
HOSTILE_TEXT = "\x1b[2J\x9b31m\x07\0\r\n\u2028\u202e\ud800" + "é" * 4096
"""What a model may write: terminal sequences, line breaks, half a surrogate pair, 4 KB and more."""


def half_right(response: str, problem) -> Verdict:
    """Accept every second text, so that groups of an untrained model have signal."""
    return Verdict.CORRECT if sum(response.encode()) % 2 else Verdict.WRONG


def seldom_right(response: str, problem) -> Verdict:
    """Accept every eighth text, so that an untrained model fails whole groups."""
    return Verdict.WRONG if sum(response.encode()) % 8 else Verdict.CORRECT


def never_right(response: str, problem) -> Verdict:
    return Verdict.WRONG


def broken(response: str, problem) -> Verdict:
    raise RuntimeError("out of order")


def talkative(response: str, problem) -> Graded:
    """Say why, in the words of a hostile attempt."""
    details = {"test": "assert f(1) == 2", "got": HOSTILE_TEXT, "isolation": "none"}
    return Graded(Verdict.WRONG, details)


def toy_rows(num_problems: int, **changes: Any) -> dict[str, Any]:
    """Generated problems whose demonstrations fit the small budget."""
    lengths = {"num_problems": num_problems, "min_clauses": 2, "max_clauses": 2, "seed": 0}
    return {"data": "toy_arithmetic", "data_config": {**lengths, **changes}}


HELD_OUT = {"new": toy_rows(3, split="held_out")}


def small_config(
    model_path: str, env_config: Mapping[str, Any] | None = None, /, **training: Any
) -> PrefixRFTConfig:
    """Prefix-RFT on 12 problems, 4 per iteration, all in this process."""
    return (
        PrefixRFTConfig()
        .environment(
            "PrefixRFT/Math-v0",
            env_config={
                **toy_rows(12),
                "max_prompt_tokens": MAX_PROMPT_TOKENS,
                "max_response_tokens": MAX_RESPONSE_TOKENS,
                "verifier": HALF_RIGHT,
                **(env_config or {}),
            },
        )
        .env_runners(num_env_runners=0)
        .learners(num_learners=0)
        .training(
            **{
                "model_path": model_path,
                "method_config": {"num_schedule_iterations": 4},
                "group_size": 4,
                "num_problems_per_iteration": 4,
                "num_problems_per_minibatch": 2,
                "lr": 1e-2,
                **training,
            }
        )
        .reporting(progress=False, preflight=False)
        .debugging(seed=3, log_level="ERROR")
    )


def config(*, model_path: str | None = "model_directory", **training) -> PrefixRFTConfig:
    """Valid settings; nothing is read from the model's directory here."""
    return small_config(model_path, **training)


def error_of(settings: PrefixRFTConfig) -> str:
    with pytest.raises(ValueError) as caught:
        settings.validate()
    return str(caught.value)
