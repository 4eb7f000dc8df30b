"""Where problems come from, as `env_config` says it: paths, names, dicts and lists of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

OWN_SETTINGS = (
    *("fields", "filters", "extra_fields", "system_prompt", "prompt_template"),
    *("chat_template", "chat_template_kwargs", "drop_template_overlap"),
)
"""Keys of `env_config` that a source may have for itself."""
_RESERVED_SPLITS = ("train",)
_ALLOWED = ("data", "data_config", *OWN_SETTINGS)


@dataclass(frozen=True)
class DataSource:
    """One place that problems come from.

    Attributes:
        data: A file, a directory, a Hugging Face datasets name, or a function's import path.
        data_config: Keyword arguments of the function or of `datasets.load_dataset`.
        own: Settings of this source alone, of `OWN_SETTINGS`.
    """

    data: str
    data_config: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)


def data_sources(key: str, data: Any, data_config: Mapping[str, Any]) -> tuple[DataSource, ...]:
    """Normalise a path, a dict or a list of these.

    Args:
        key: Of `env_config`, for messages.
        data: Its value.
        data_config: The arguments that stand beside it; {} for none.

    Returns:
        At least one source; their own settings are not checked yet.

    Raises:
        ValueError: If it is something else.
    """
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
    own: dict[str, Any] = {}
    if isinstance(entry, Mapping):
        if not set(entry) <= set(_ALLOWED) or "data" not in entry:
            raise ValueError(
                f"env_config[{key!r}] has an entry with the keys {sorted(map(str, entry))}. "
                f'Allowed: "data" (needed) and {", ".join(_ALLOWED[1:])}.'
            )
        own = {name: entry[name] for name in OWN_SETTINGS if name in entry}
        data_config = entry.get("data_config") or data_config
        entry = entry["data"]
    if not isinstance(entry, str) and not hasattr(entry, "__fspath__"):
        raise ValueError(
            f"env_config[{key!r}] must be a path, a dataset name, a dict with 'data', or a list of "
            f"these, got {entry!r} ({type(entry).__name__})."
        )
    if not isinstance(data_config, Mapping):
        raise ValueError(f"data_config of {str(entry)!r} must be a dict, got {data_config!r}.")
    return DataSource(str(entry), dict(data_config), own)


def held_out_sources(held_out: Mapping[Any, Any]) -> dict[str, tuple[DataSource, ...]]:
    """Normalise the sources of held-out sets by name.

    Raises:
        ValueError: If a name or a source is wrong.
    """
    for name in held_out:
        is_text = isinstance(name, str) and name
        if not is_text or "/" in name or name in _RESERVED_SPLITS:
            raise ValueError(
                f"env_config['held_out_data'] has the name {name!r}. A name is a non-empty text "
                f"without '/' other than {', '.join(map(repr, _RESERVED_SPLITS))}: results are "
                "called evaluation/<name>/<metric>."
            )
    return {name: data_sources("held_out_data", data, {}) for name, data in held_out.items()}


def source_names(sources: Sequence[DataSource]) -> list[str]:
    """Name sources shortly, each differently: by file name, by path where those are equal.

    Sources of one path (splits of a data set) are numbered from 1.
    """
    short = [PurePath(source.data).name or source.data for source in sources]
    count = Counter(short)
    names = [
        name if count[name] == 1 else source.data
        for name, source in zip(short, sources, strict=True)
    ]
    count = Counter(names)
    return [
        name if count[name] == 1 else f"{name}#{names[: number + 1].count(name)}"
        for number, name in enumerate(names)
    ]
