"""The keys of `env_config`: defaults, types and combinations, checked in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from prefix_rft_rllib.envs.verifiers.verdict import Verdict

FILTERS = ("prompt_too_long", "no_demonstration", "no_parseable_answer")
FIELDS = (
    *("prompt", "answer", "demonstration", "id", "problem_id", "domain"),
    *("tests", "entry_point"),
)
_RESERVED_SPLITS = ("train",)
_TEXT = ("data", "tokenizer", "system_prompt", "prompt_template", "verifier")
_COUNTS = ("max_prompt_tokens", "max_response_tokens", "vocab_size")


@dataclass(frozen=True)
class DataSource:
    """One place that problems come from.

    Attributes:
        data: A file, a directory, a Hugging Face datasets name, or a generator's name.
        data_config: Keyword arguments of the generator or of `datasets.load_dataset`.
    """

    data: str
    data_config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EnvSettings:
    """A checked `env_config`; the attributes are its keys (`docs/problems.md` explains each).

    `from_config` builds it; nothing is read from disk here, so that a configuration can be
    checked before any data is loaded.
    """

    data: tuple[DataSource, ...]
    tokenizer: str
    fields: Mapping[str, str] = field(default_factory=dict)
    system_prompt: str | None = None
    prompt_template: str | None = None
    chat_template: bool | None = None
    max_prompt_tokens: int = 1024  # LUFFY's recipe, which the paper follows (App. A)
    max_response_tokens: int = 8192
    held_out_fraction: float = 0.0
    held_out_data: Mapping[str, tuple[DataSource, ...]] = field(default_factory=dict)
    demonstration_fraction: float = 1.0
    filters: tuple[str, ...] = ()
    verifier: str = "math"
    verifier_config: Mapping[str, Any] = field(default_factory=dict)
    rewards: Mapping[str, float] = field(default_factory=lambda: {"CORRECT": 1.0})
    cut_prefix_before_answer: bool = True
    vocab_size: int | None = None

    @classmethod
    def from_config(cls, env_config: Mapping[str, Any]) -> EnvSettings:
        """Check an `env_config` and fill in the defaults.

        Args:
            env_config: Plain data, for example from RLlib's `config.env_config`.

        Returns:
            The settings, sources normalised to `DataSource` values.

        Raises:
            ValueError: If a key is unknown or missing, a value is of the wrong type or out of
                range, or two values contradict each other.
        """
        known = [*(item.name for item in fields(cls)), "data_config"]
        for key in env_config:
            if key not in known:
                raise ValueError(f"Unknown env_config key {key!r}. Known keys: {', '.join(known)}.")
        values = dict(env_config)
        for key, what in (("data", "problems"), ("tokenizer", "a tokenizer directory")):
            if values.get(key) is None:
                raise ValueError(
                    f"env_config[{key!r}] is missing: the environment needs {what}. Set "
                    f'env_config={{"{key}": ...}} (see docs/problems.md).'
                )
        values["data"] = _sources("data", values["data"], values.pop("data_config", None) or {})
        values["held_out_data"] = _held_out_sources(values.get("held_out_data") or {})
        values["tokenizer"] = str(values["tokenizer"])
        _check_types(values)
        values["filters"] = _checked_filters(values.get("filters", ()))
        if "rewards" in values:
            values["rewards"] = _checked_rewards(values["rewards"])
        settings = cls(**values)
        _check_combinations(settings)
        return settings


def _sources(key: str, data: Any, data_config: Any) -> tuple[DataSource, ...]:
    """Normalise a path, a dict or a list of these."""
    if not isinstance(data_config, Mapping):
        raise ValueError(
            f"env_config['data_config'] must be a dict of keyword arguments, got {data_config!r}."
        )
    entries = list(data) if isinstance(data, list | tuple) else [data]
    if not entries:
        raise ValueError(f"env_config[{key!r}] is an empty list: name at least one source.")
    if data_config and len(entries) > 1:
        raise ValueError(
            "env_config['data_config'] is set, but 'data' is a list: it is not clear which source "
            'it belongs to. Write {"data": ..., "data_config": {...}} as the list\'s entry.'
        )
    return tuple(_source(key, entry, data_config) for entry in entries)


def _source(key: str, entry: Any, data_config: Mapping[str, Any]) -> DataSource:
    if isinstance(entry, Mapping):
        unknown = set(entry) - {"data", "data_config"}
        if unknown or "data" not in entry:
            raise ValueError(
                f"env_config[{key!r}] has an entry with the keys {sorted(map(str, entry))}. "
                'Allowed: "data" (needed) and "data_config".'
            )
        return _source(key, entry["data"], entry.get("data_config") or data_config)
    if not isinstance(entry, str) and not hasattr(entry, "__fspath__"):
        raise ValueError(
            f"env_config[{key!r}] must be a path, a dataset name, a dict with 'data', or a list of "
            f"these, got {entry!r} ({type(entry).__name__})."
        )
    if not isinstance(data_config, Mapping):
        raise ValueError(f"data_config of {str(entry)!r} must be a dict, got {data_config!r}.")
    return DataSource(str(entry), dict(data_config))


def _held_out_sources(held_out: Any) -> dict[str, tuple[DataSource, ...]]:
    if not isinstance(held_out, Mapping):
        raise ValueError(
            "env_config['held_out_data'] must map a name to a source, for example "
            f'{{"math500": "eval_math500.jsonl"}}, got {held_out!r}.'
        )
    for name in held_out:
        if not isinstance(name, str) or not name or name in _RESERVED_SPLITS:
            raise ValueError(
                f"env_config['held_out_data'] has the name {name!r}. A name is a non-empty text "
                f"other than {', '.join(map(repr, _RESERVED_SPLITS))}."
            )
    return {name: _sources("held_out_data", data, {}) for name, data in held_out.items()}


def _check_types(values: dict[str, Any]) -> None:
    """Check plain values that are present; sources are checked where they are normalised."""
    for key in _TEXT[1:]:
        value = values.get(key)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"env_config[{key!r}] must be text, got {value!r}.")
    for key in _COUNTS:
        value = values.get(key)
        if value is None and key == "vocab_size":
            continue
        value = values.setdefault(key, getattr(EnvSettings, key))
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f"env_config[{key!r}] must be a whole number of at least 1, got {value!r}."
            )
    for key in ("verifier_config", "fields", "rewards"):
        if key in values and not isinstance(values[key], Mapping):
            raise ValueError(f"env_config[{key!r}] must be a dict, got {values[key]!r}.")
    for key, allowed in (("cut_prefix_before_answer", (True, False)), ("chat_template", (None,))):
        value = values.get(key, allowed[0])
        if not isinstance(value, bool) and value not in allowed:
            choices = "True or False" if None not in allowed else "None, True or False"
            raise ValueError(f"env_config[{key!r}] must be {choices}, got {value!r}.")
    for key in ("held_out_fraction", "demonstration_fraction"):
        if key in values:
            _check_fraction(key, values[key], may_be_one=key == "demonstration_fraction")
    for ours, theirs in values.get("fields", {}).items():
        if ours not in FIELDS or not isinstance(theirs, str) or not theirs:
            raise ValueError(
                f"env_config['fields'] has {ours!r}: {theirs!r}. It maps our field names "
                f"({', '.join(FIELDS)}) to the names of your data."
            )


def _check_fraction(key: str, value: Any, *, may_be_one: bool) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (0 <= value < 1 or (may_be_one and value == 1)):
        return
    hint = ""
    if is_number and (1 < value < 100 or (may_be_one and value == 100)):
        hint = f" It is a share, not a percentage: use {value / 100:g} for {value:g}%."
    allowed = "[0, 1]" if may_be_one else "[0, 1)"
    raise ValueError(f"env_config[{key!r}] must be in {allowed}, got {value!r}.{hint}")


def _checked_filters(filters: Any) -> tuple[str, ...]:
    if isinstance(filters, str) or not isinstance(filters, list | tuple | set | frozenset):
        raise ValueError(f"env_config['filters'] must be a list of names, got {filters!r}.")
    for name in filters:
        if name not in FILTERS:
            raise ValueError(f"Unknown filter {name!r}. Known filters: {', '.join(FILTERS)}.")
    return tuple(name for name in FILTERS if name in filters)


def _checked_rewards(rewards: Mapping[str, Any]) -> dict[str, float]:
    """Check a table of rewards by verdict name."""
    names = [verdict.name for verdict in Verdict]
    for name, value in rewards.items():
        if name not in names:
            raise ValueError(
                f"env_config['rewards'] has the unknown verdict {name!r}. Verdicts: "
                f"{', '.join(names)}."
            )
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise ValueError(
                f"env_config['rewards'][{name!r}] must be a finite number, got {value!r}."
            )
    return {str(name): float(value) for name, value in rewards.items()}


def _check_combinations(settings: EnvSettings) -> None:
    template = settings.prompt_template
    if template is not None and "{prompt}" not in template:
        raise ValueError(
            f"env_config['prompt_template'] ({template!r}) does not contain {{prompt}}: "
            "the problem would not reach the model."
        )
    if settings.held_out_fraction > 0 and "held_out" in settings.held_out_data:
        raise ValueError(
            "env_config['held_out_data'] has the name 'held_out', which is the name of the part "
            "split off by 'held_out_fraction'. Rename it or set held_out_fraction to 0."
        )
    extract = settings.verifier_config.get("extract", "boxed")
    if settings.verifier == "math" and extract != "boxed" and settings.cut_prefix_before_answer:
        raise ValueError(
            f"cut_prefix_before_answer=True needs boxed extraction, but verifier_config has "
            f"extract={extract!r}: without a box the place of the answer is not known. Set "
            "cut_prefix_before_answer=False or extract='boxed'."
        )
