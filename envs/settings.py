"""The keys of `env_config`: defaults, types and combinations, checked in one place."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from prefix_rft_rllib.envs.prompts.prompt_settings import (
    check_prompt_settings,
    checked_extra_fields,
    checked_fields,
)
from prefix_rft_rllib.envs.rows.data_sources import DataSource, data_sources, held_out_sources
from prefix_rft_rllib.envs.verifiers.verdict import Verdict

FILTERS = (
    *("prompt_too_long", "no_demonstration", "no_parseable_answer"),
    "changed_by_tokenizer",
)
_TEXT = ("tokenizer", "system_prompt", "prompt_template", "verifier")
_COUNTS = ("max_prompt_tokens", "max_response_tokens", "vocab_size")
_BOOLS = ("cut_prefix_before_answer", "drop_template_overlap")


@dataclass(frozen=True, kw_only=True)
class EnvSettings:
    """A checked `env_config`; the attributes are its keys (`docs/problems.md` explains each).

    `from_config` builds it; nothing is read from disk here, so that a configuration can be
    checked before any data is loaded.
    """

    data: tuple[DataSource, ...]
    tokenizer: str
    fields: Mapping[str, str] | str | None = None
    extra_fields: tuple[str, ...] | None = None
    system_prompt: str | None = None
    prompt_template: str | None = None
    chat_template: bool | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    drop_template_overlap: bool = False
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
    eos_token_ids: tuple[int, ...] | None = None

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
        data_config = values.pop("data_config", None) or {}
        values["data"] = data_sources("data", values["data"], data_config)
        values["held_out_data"] = held_out_sources(values.get("held_out_data") or {})
        values["tokenizer"] = str(values["tokenizer"])
        settings = cls(**_checked(values))
        _check_combinations(settings)
        for source in settings.sources:
            settings.of_source(source)
        return settings

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """All sources: those of `data`, then those of the held-out sets."""
        held_out = [source for group in self.held_out_data.values() for source in group]
        return (*self.data, *held_out)

    def of_source(self, source: DataSource) -> EnvSettings:
        """The settings with those that a source has for itself.

        Raises:
            ValueError: If one of these is wrong; the source is named.
        """
        if not source.own:
            return self
        try:
            settings = replace(self, **_checked(dict(source.own)))
            _check_combinations(settings)
        except ValueError as error:
            raise ValueError(f"The data source {source.data!r} by itself: {error}") from error
        return settings


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """Check some keys, each by itself, and normalise them; sources are checked already."""
    _check_types(values)
    if "filters" in values:
        values["filters"] = _checked_filters(values["filters"])
    if "fields" in values:
        values["fields"] = checked_fields(values["fields"])
    if "extra_fields" in values:
        values["extra_fields"] = checked_extra_fields(values["extra_fields"])
    if "rewards" in values:
        values["rewards"] = _checked_rewards(values["rewards"])
    if values.get("eos_token_ids") is not None:
        values["eos_token_ids"] = _checked_ids(values["eos_token_ids"])
    check_prompt_settings(values)
    return values


def _check_types(values: dict[str, Any]) -> None:
    """Check plain values that are present; sources are checked where they are normalised."""
    for key in _TEXT:
        value = values.get(key)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"env_config[{key!r}] must be text, got {value!r}.")
        if value is not None and re.search("[\ud800-\udfff]", value):
            raise ValueError(
                f"env_config[{key!r}] has half of a surrogate pair, which is no character and "
                f"which no tokenizer can encode, got {value!a}. Mend the text."
            )
    for key in _COUNTS:
        value = values.get(key, 1)
        if value is None and key == "vocab_size":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f"env_config[{key!r}] must be a whole number of at least 1, got {value!r}."
            )
    for key in ("verifier_config", "rewards"):
        if key in values and not isinstance(values[key], Mapping):
            raise ValueError(f"env_config[{key!r}] must be a dict, got {values[key]!r}.")
    for key in _BOOLS:
        if not isinstance(values.get(key, True), bool):
            raise ValueError(f"env_config[{key!r}] must be True or False, got {values[key]!r}.")
    for key in ("held_out_fraction", "demonstration_fraction"):
        if key in values:
            _check_fraction(key, values[key], may_be_one=key == "demonstration_fraction")


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


def _checked_ids(ids: Any) -> tuple[int, ...]:
    """Check a list of token ids; the tokenizer's size is not known here."""
    is_list = isinstance(ids, list | tuple | set | frozenset)
    whole = [i for i in ids if isinstance(i, int) and not isinstance(i, bool)] if is_list else []
    if not is_list or len(whole) < len(ids) or min(whole, default=0) < 0:
        raise ValueError(
            "env_config['eos_token_ids'] must be a list of token ids (whole numbers of at least "
            f"0), or None for those that the model's files name, got {ids!r}."
        )
    return tuple(sorted(set(whole)))


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
