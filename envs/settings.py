"""The keys of `env_config`: defaults, types and combinations, checked in one place."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prefix_rft_rllib.basics.declarations import NEEDED, Declaration, declarations, setting
from prefix_rft_rllib.basics.ranges import (
    DIRECTORY_OR_NAME,
    FLAG,
    SHARE,
    TEXT,
    Range,
    any_of,
    mapping,
    one_of,
    only,
    optional,
    real,
    texts,
    whole,
)
from prefix_rft_rllib.envs.prompts.prompt_settings import (
    check_prompt_template,
    checked_fields,
    checked_template_kwargs,
)
from prefix_rft_rllib.envs.rows.data_sources import DataSource, data_sources, held_out_sources
from prefix_rft_rllib.envs.rows.row_forms import FIELDS, PRESETS
from prefix_rft_rllib.envs.verifiers.verdict import Verdict

FILTERS = (
    *("prompt_too_long", "no_demonstration", "no_parseable_answer"),
    "changed_by_tokenizer",
)
_SOURCES = Range(
    "a path, a dataset name, a dict with 'data', or a list of these",
    lambda v: isinstance(v, str | os.PathLike | Mapping | list | tuple),
)
_FIELDS = any_of(
    one_of(PRESETS), mapping(f"our field names ({', '.join(FIELDS)}) to yours"), only(None)
)
_COLUMNS = optional(texts("column names"), "for all")
_TOKEN_IDS = Range(
    "a list of token ids (whole numbers of at least 0)",
    lambda v: (
        isinstance(v, list | tuple | set | frozenset) and bool(v) and all(map(whole(0).contains, v))
    ),
)


@dataclass(frozen=True, kw_only=True)
class EnvSettings:
    """A checked `env_config`; the attributes are its keys (`docs/settings.md` lists them).

    `from_config` builds it; nothing is read from disk here, so that a configuration can be
    checked before any data is loaded. The attribute of a key is normalised: what stands in
    `allowed` is what a user may write.
    """

    data: tuple[DataSource, ...] = setting(
        NEEDED,
        _SOURCES,
        "A file, a directory, a datasets name, a function's import path, or a list of these; an "
        'entry may be `{"data": ..., "data_config": {...}}` with settings of its own '
        "(docs/problems.md#sources).",
    )
    tokenizer: str = setting(
        NEEDED,
        DIRECTORY_OR_NAME,
        "A tokenizer of transformers; `PrefixRFTConfig` fills in the model's.",
        change="Never with a model: its own tokenizer is the right one.",
    )
    fields: Mapping[str, str] | str | None = setting(
        None,
        _FIELDS,
        "Our field names to yours, or a form of data (docs/problems.md).",
        change="When a row's fields are not found under their usual names.",
    )
    extra_fields: tuple[str, ...] | None = setting(
        None,
        _COLUMNS,
        "The other columns that the verifier gets.",
        change="Where wide rows take memory.",
    )
    system_prompt: str | None = setting(
        None,
        optional(TEXT, "to leave it to the template"),
        "System message; without chat template it stands in front, followed by an empty line. "
        '`""`: none at all (docs/problems.md#prompts-and-token-ids).',
        change="To ask for the form of answer that the verifier reads.",
    )
    prompt_template: str | None = setting(
        None,
        optional(TEXT, "for the problem alone"),
        "Text around the problem, which stands for `{prompt}`; other braces stay as they are.",
        change="For instructions to a model without system messages.",
    )
    chat_template: bool | None = setting(
        None,
        optional(FLAG, "to use the tokenizer's if it has one"),
        "Whether prompts go through the tokenizer's chat template; `True`: it must have one.",
        change="False for a base model whose tokenizer has a template nevertheless.",
    )
    chat_template_kwargs: Mapping[str, Any] = setting(
        {},
        optional(mapping("names to values")),
        'Variables of the chat template, such as `{"enable_thinking": False}`.',
        change="For templates that have some.",
    )
    drop_template_overlap: bool = setting(
        False,
        FLAG,
        "Drop from demonstrations the tags that end the prompt, such as `<think>`.",
        change="When the preflight counts demonstrations that repeat the prompt.",
    )
    max_prompt_tokens: int = setting(
        1024,
        whole(1),
        "Budget of the prompt in tokens, template included.",
        change="When the preflight says that prompts are longer.",
        paper="1024",
    )
    max_response_tokens: int = setting(
        8192,
        whole(1),
        "Budget of the response in tokens: prefix, sampled tokens and end token.",
        change="Lower where the model has fewer positions, or to save time.",
        paper="8192",
    )
    held_out_fraction: float = setting(
        0.0,
        real(0, below=1),
        'Share of the problems that is kept from training, as the set `"held_out"`.',
        change="0.01 to 0.1 where there is no data set for evaluation.",
    )
    held_out_data: Mapping[str, tuple[DataSource, ...]] = setting(
        {},
        optional(mapping("names to sources")),
        "Further held-out sets: name to source.",
        change="For benchmarks beside the training data.",
    )
    demonstration_fraction: float = setting(
        1.0,
        SHARE,
        "Share of the training problems with demonstrations that keep them; the others stay as "
        "plain problems.",
        change="To see how many demonstrations a method needs.",
        paper="1.0; 0.1 and 0.01 in an ablation",
    )
    filters: tuple[str, ...] = setting(
        (),
        texts(f"names, of {', '.join(FILTERS)}"),
        "Problems to leave out (docs/problems.md#filters-and-counts).",
        change="When the preflight names problems that cannot be trained on.",
    )
    verifier: str = setting(
        "math",
        TEXT,
        "`math`, `code`, `choice`, `domain` (of these three the one that each problem's domain "
        "names), or import path `package.module:function` of a `verify(response, problem)` that "
        "returns a `Verdict` or a number, maybe with details (docs/problems.md#the-environment).",
        change="For answers that the shipped verifiers cannot compare.",
    )
    verifier_config: Mapping[str, Any] = setting(
        {},
        mapping(),
        "Settings of the verifier.",
        change="See docs/math_verifier.md, docs/code_verifier.md and docs/choice_verifier.md.",
    )
    rewards: Mapping[str, float] = setting(
        {"CORRECT": 1.0},
        mapping("verdicts' names to numbers"),
        "Reward by verdict name; verdicts that are not listed give 0.0.",
        change="To tell an unreadable answer from a wrong one.",
        paper="1 for a right answer, else 0",
    )
    cut_prefix_before_answer: bool = setting(
        True,
        FLAG,
        "A prefix ends before the box that gives the answer away, in a choice problem before such "
        "a letter too, in code before the last line; mathematics needs boxed extraction.",
        change="False for demonstrations that end without their answer.",
    )
    vocab_size: int | None = setting(
        None,
        optional(whole(1), "for the tokenizer's"),
        "Number of actions; `PrefixRFTConfig` fills in the model's.",
        change="If the model has more ids than the tokenizer.",
    )
    eos_token_ids: tuple[int, ...] | None = setting(
        None,
        optional(_TOKEN_IDS, "for those that the model's files name"),
        "Token ids that end a response, beside the tokenizer's own "
        "(docs/problems.md#what-ends-a-response).",
        change="If a model ends its turns with a token that its files do not name.",
    )

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
        known = [declaration.name for declaration in ENV_DECLARATIONS]
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
        _check_ranges(values)
        data_config = values.pop("data_config", None) or {}
        values["data"] = data_sources("data", values["data"], data_config)
        values["held_out_data"] = held_out_sources(values.get("held_out_data") or {})
        values["tokenizer"] = str(values["tokenizer"])
        settings = cls(**_normalised(values))
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
            _check_ranges(source.own)
            settings = replace(self, **_normalised(dict(source.own)))
            _check_combinations(settings)
        except ValueError as error:
            raise ValueError(f"The data source {source.data!r} by itself: {error}") from error
        return settings


DATA_CONFIG = Declaration(
    name="data_config",
    default={},
    allowed=optional(mapping()),
    meaning="Arguments of the function, or of `datasets.load_dataset`; with a list of sources each "
    "entry has its own.",
    paper="",
    change="",
)
"""The key that is no attribute: its values stand in the sources of `data`."""

ENV_DECLARATIONS = (*declarations(EnvSettings), DATA_CONFIG)
"""All keys of `env_config`."""


def _check_ranges(values: Mapping[str, Any]) -> None:
    """Check some keys, each by itself."""
    for declaration in ENV_DECLARATIONS:
        key = declaration.name
        if key not in values:
            continue
        value = values[key]
        complaint = declaration.allowed.complaint(value)
        if complaint is not None:
            raise ValueError(f"env_config[{key!r}] {complaint}")
        if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
            raise ValueError(
                f"env_config[{key!r}] has half of a surrogate pair, which is no character and "
                f"which no tokenizer can encode, got {value!a}. Mend the text."
            )


def _normalised(values: dict[str, Any]) -> dict[str, Any]:
    """Check what is inside of some keys, whose ranges are checked already, and normalise them."""
    check_prompt_template(values.get("prompt_template"))
    for key, normal in _NORMAL.items():
        if key in values:
            values[key] = normal(values[key])
    return values


def _normal_filters(filters: Any) -> tuple[str, ...]:
    for name in filters:
        if name not in FILTERS:
            raise ValueError(f"Unknown filter {name!r}. Known filters: {', '.join(FILTERS)}.")
    return tuple(name for name in FILTERS if name in filters)


def _normal_rewards(rewards: Mapping[str, Any]) -> dict[str, float]:
    """Check a table of rewards by verdict name."""
    names = [verdict.name for verdict in Verdict]
    for name, value in rewards.items():
        if name not in names:
            raise ValueError(
                f"env_config['rewards'] has the unknown verdict {name!r}. Verdicts: "
                f"{', '.join(names)}."
            )
        complaint = real().complaint(value)
        if complaint is not None:
            raise ValueError(f"env_config['rewards'][{name!r}] {complaint}")
    return {str(name): float(value) for name, value in rewards.items()}


_NORMAL = {
    "fields": checked_fields,
    "extra_fields": lambda names: names and tuple(names),
    "chat_template_kwargs": lambda kwargs: checked_template_kwargs(kwargs or {}),
    "filters": _normal_filters,
    "rewards": _normal_rewards,
    "eos_token_ids": lambda ids: ids and tuple(sorted(set(ids))),
}


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
