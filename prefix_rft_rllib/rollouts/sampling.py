"""How rollouts are sampled, where it is not as the settings of the run say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EVALUATION_ENV = "PrefixRFT/Math-v0"
"""Environment of problems that are not the run's own; their settings name the verifier."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What differs from the settings of the env runners and of their environment.

    Attributes:
        temperature: 0 is greedy. None: that of the settings.
        top_p: Nucleus. None: that of the settings.
        max_response_tokens: Budget of a response, at most the environment's. None: all of it.
        env_config: Settings of the environment that has the problems, an `EVALUATION_ENV`. None:
            the run's own environment.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_response_tokens: int | None = None
    env_config: Mapping[str, Any] | None = None


AS_SET = Sampling()
"""All as the settings say."""
