"""Sets of problems that are evaluated during training: how each is asked, as a user writes it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prefix_rft_rllib.basics.declarations import declarations, setting
from prefix_rft_rllib.basics.ranges import TEXT, mapping, optional, whole
from prefix_rft_rllib.envs.problems.problem import TRAIN
from prefix_rft_rllib.evaluation.benchmarks import find_benchmark
from prefix_rft_rllib.evaluation.options import MAX_K, EvaluationOptions

_OPTIONS = {declaration.name: declaration for declaration in declarations(EvaluationOptions)}


def _option(name: str, default: Any, meaning_of_none: str) -> Any:
    """A setting of the command, with another default: None."""
    known = _OPTIONS[name]
    return setting(default, optional(known.allowed, meaning_of_none), known.meaning)


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """How one set is asked: the keys of an entry of `evaluation_sets`."""

    benchmark: str | None = setting(
        None,
        optional(TEXT, "for the held-out set of this name"),
        "What to ask, as `--benchmark` of the command takes it: a recipe, a recipe with a file "
        "('NAME=FILE'), or a source of problems.",
    )
    num_samples: int | None = setting(
        None,
        optional(whole(0, MAX_K), "for a recipe's own, else `held_out_num_samples`"),
        "k: sampled attempts at each problem; 0 for the greedy one alone.",
    )
    greedy: bool = setting(True, _OPTIONS["greedy"].allowed, _OPTIONS["greedy"].meaning)
    temperature: float | None = _option("temperature", None, "for that of config.env_runners()")
    top_p: float | None = _option("top_p", None, "for that of config.env_runners()")
    max_response_tokens: int | None = setting(
        None,
        optional(_OPTIONS["max_response_tokens"].allowed, "for all of env_config's"),
        "Longest response, at most env_config['max_response_tokens'].",
    )
    num_problems: int | None = setting(
        None, _OPTIONS["num_problems"].allowed, _OPTIONS["num_problems"].meaning
    )
    env_config: Mapping[str, Any] = setting(
        {}, _OPTIONS["env_config"].allowed, _OPTIONS["env_config"].meaning
    )


OF_THE_RUN = ("tokenizer", "vocab_size", "eos_token_ids")
"""Keys of `env_config` that the engine depends on: those of benchmarks are the run's."""
_REFUSED = {
    **dict.fromkeys(OF_THE_RUN, "which must be the run's: one engine answers all sets"),
    "data": "which 'benchmark' names",
    **dict.fromkeys(("held_out_data", "held_out_fraction"), "but nothing of a set is held out"),
}
"""Keys that a set's `env_config` must not have, and why."""
_INHERITED = (
    *OF_THE_RUN,
    *("system_prompt", "chat_template", "chat_template_kwargs"),
    *("max_prompt_tokens", "max_response_tokens", "rewards"),
)
"""Keys of the run's `env_config` that hold for benchmarks too; the recipe decides the others."""
SET_DECLARATIONS = {declaration.name: declaration for declaration in declarations(EvaluationSet)}
"""The keys of an entry of `evaluation_sets`."""


def sets_to_evaluate(
    sets: Mapping[str, Any] | None, held_out: Iterable[str]
) -> dict[str, EvaluationSet]:
    """Read `evaluation_sets`.

    Args:
        sets: By name, the settings of each set; None for all held-out sets as they are.
        held_out: Names of the held-out sets.

    Returns:
        How each set is asked, checked as far as it can be without data.

    Raises:
        ValueError: If a name cannot stand in a metric's key, a key is unknown or a value is out of
            its range.
    """
    if sets is None:
        return {name: EvaluationSet() for name in held_out}
    if not sets:
        raise ValueError(
            "`evaluation_sets` is empty: nothing would be evaluated. Name a set, leave it at None "
            "for all held-out sets, or set evaluation_interval=None for no evaluation."
        )
    return {name: _checked(name, entry) for name, entry in sets.items()}


def _checked(name: str, entry: Any) -> EvaluationSet:
    where = f"evaluation_sets[{name!r}]"
    if not name or "/" in name or name == TRAIN:
        raise ValueError(
            f"`evaluation_sets` has the name {name!r}. A name is a non-empty text without '/', and "
            f"not {TRAIN!r}: results are called evaluation/<name>/<metric>."
        )
    mapping("settings of a set").check(where, entry)
    for key, value in entry.items():
        if key not in SET_DECLARATIONS:
            near = difflib.get_close_matches(key, SET_DECLARATIONS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"`{where}` has the unknown key {key!r}.{hint} Known: "
                f"{', '.join(SET_DECLARATIONS)}."
            )
        SET_DECLARATIONS[key].allowed.check(f"{where}[{key!r}]", value)
    checked = EvaluationSet(**entry)
    if checked.num_samples == 0 and not checked.greedy:
        raise ValueError(
            f"`{where}` asks nothing: `num_samples` is 0 and `greedy` is False. Raise the one or "
            "set the other to True."
        )
    if checked.benchmark is None and checked.env_config:
        raise ValueError(
            f"`{where}['env_config']` has no effect: it is for a `benchmark`. A held-out set is "
            "asked as env_config['held_out_data'] says."
        )
    for key, reason in _REFUSED.items():
        if key in checked.env_config:
            raise ValueError(f"`{where}['env_config']` has {key!r}, {reason}. Leave it out.")
    return checked


def benchmark_env_config(asked: EvaluationSet, env_config: Mapping[str, Any]) -> dict[str, Any]:
    """The `env_config` of a benchmark.

    Args:
        asked: A set with a `benchmark`.
        env_config: The run's.

    Returns:
        What holds for the benchmark of the run's, then the recipe's, then the set's own.

    Raises:
        ValueError: If there is no such benchmark.
    """
    assert asked.benchmark is not None
    chosen = find_benchmark(asked.benchmark)
    inherited = {key: env_config[key] for key in _INHERITED if key in env_config}
    fixed = {"cut_prefix_before_answer": False}
    return {**inherited, **fixed, **chosen.recipe.env_config(chosen.source), **asked.env_config}
