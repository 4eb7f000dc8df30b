"""How a model is asked and what is reported of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefix_rft_rllib.basics.declarations import declarations, setting
from prefix_rft_rllib.basics.ranges import FLAG, Range, mapping, optional, real, texts, whole

MAX_K = 2048
"""Largest k of pass@k that is reported."""


def _numbers(least: int | None, of: str) -> Range:
    entry = whole(least)
    return Range(
        f"a list of {of}",
        lambda values: isinstance(values, list | tuple) and all(map(entry.contains, values)),
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How a model is asked and what is reported of it; every value is checked when it is made.

    Each field is declared with its range and meaning, from which the command's help is made.
    """

    num_samples: int | None = setting(
        None,
        optional(whole(0), "for as many as the benchmark's protocol says"),
        "Sampled attempts at each problem for each seed; 0 for the greedy one alone.",
    )
    greedy: bool = setting(True, FLAG, "Whether each problem gets a greedy attempt too.")
    seeds: tuple[int, ...] = setting(
        (0,),
        _numbers(0, "one or more whole numbers of at least 0"),
        "Inference seeds; with several of them mean and deviation over seeds are reported.",
    )
    ks: tuple[int, ...] = setting(
        (),
        _numbers(1, "whole numbers of at least 1"),
        "k of pass@k and maj@k, at most `num_samples`; none: powers of 2 up to it, and itself.",
    )
    temperature: float = setting(
        0.6,
        real(above=0).advising("The greedy attempt is asked beside; for it alone: num_samples=0."),
        "Of the sampled attempts.",
    )
    top_p: float = setting(1.0, real(above=0, most=1), "Nucleus of the sampled attempts.")
    num_problems: int | None = setting(
        None,
        optional(whole(1), "for all"),
        "Ask only so many problems, spread evenly over the data.",
    )
    breakdown: tuple[str, ...] = setting(
        ("domain",),
        texts("names"),
        "Fields of the data, 'domain' or columns such as 'meta.level': results for each value.",
    )
    attempts_per_call: int = setting(
        64,
        whole(1),
        "Attempts that go to each env runner at a time; after each call they are written.",
    )
    max_prompt_tokens: int = setting(2048, whole(1), "Longest prompt, its template included.")
    max_response_tokens: int = setting(8192, whole(1), "Longest response.")
    engine: str = setting(
        "transformers",
        Range("'transformers' or 'vllm'", lambda value: value in ("transformers", "vllm")),
        "What generates the responses.",
    )
    engine_config: Mapping[str, Any] = setting({}, mapping(), "Settings of the engine.")
    num_env_runners: int = setting(
        0, whole(0), "Processes that answer; 0: this one, without Ray being started."
    )
    num_gpus_per_env_runner: float = setting(0, real(least=0), "GPUs of each of them.")
    env_config: Mapping[str, Any] = setting(
        {},
        mapping("env_config keys"),
        "Further keys of `env_config` (docs/problems.md), which win over the benchmark's.",
    )

    def __post_init__(self) -> None:
        for declaration in declarations(type(self)):
            declaration.allowed.check(declaration.name, getattr(self, declaration.name))
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` must hold one or more different seeds, got {self.seeds}.")

    def of_protocol(self, num_samples: int) -> EvaluationOptions:
        """Fill in what a benchmark's protocol decides, and check it with the rest.

        Args:
            num_samples: The protocol's, where none is given.

        Returns:
            Options whose `num_samples` and `ks` are set.

        Raises:
            ValueError: If a k is above the number of attempts, or there is nothing to ask.
        """
        n = num_samples if self.num_samples is None else self.num_samples
        if n == 0 and not self.greedy:
            raise ValueError("Nothing to ask: `num_samples` is 0 and `greedy` is False.")
        for k in self.ks:
            if k > min(n, MAX_K):
                raise ValueError(
                    f"`ks` has {k}, but there are {n} sampled attempts at each problem, and pass@k "
                    f"is given up to {MAX_K}. Raise `num_samples`, or take a smaller k."
                )
        powers = [2**i for i in range(MAX_K.bit_length()) if 2**i <= n]
        ks = self.ks or (*powers, *([min(n, MAX_K)] if n else []))
        return dataclasses.replace(self, num_samples=n, ks=tuple(sorted(set(ks))))
