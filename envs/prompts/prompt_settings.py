"""Checks of the keys of `env_config` that say how rows become prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefix_rft_rllib.envs.rows.plain_values import NotPlainError, plain
from prefix_rft_rllib.envs.rows.row_forms import FIELDS, PRESETS

_RESERVED_KWARGS = (
    *("conversation", "messages", "chat_template", "tokenize", "add_generation_prompt"),
    *("continue_final_message", "padding", "truncation", "max_length", "return_tensors"),
    *("return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"),
)


def checked_fields(value: Any) -> Mapping[str, str] | str | None:
    """Check `fields`: a preset's name, a dict from our field names to the data's, or nothing.

    Raises:
        ValueError: If it is something else.
    """
    if not value:
        return None
    if isinstance(value, str):
        if value not in PRESETS:
            raise ValueError(
                f"env_config['fields'] is {value!r}. The known forms of data are "
                f"{', '.join(map(repr, PRESETS))}; else give a dict of our field names "
                f"({', '.join(FIELDS)}) to yours."
            )
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"env_config['fields'] must be a dict or a form's name, got {value!r}.")
    for ours, theirs in value.items():
        if ours not in FIELDS or not isinstance(theirs, str) or not theirs:
            raise ValueError(
                f"env_config['fields'] has {ours!r}: {theirs!r}. It maps our field names "
                f"({', '.join(FIELDS)}) to the names of your data."
            )
    return dict(value)


def checked_extra_fields(value: Any) -> tuple[str, ...] | None:
    """Check `extra_fields`: None, or a list of columns.

    Raises:
        ValueError: If it is something else.
    """
    if value is None:
        return None
    is_list = isinstance(value, list | tuple | set | frozenset)
    if not is_list or not all(isinstance(name, str) for name in value):
        raise ValueError(
            f"env_config['extra_fields'] must be a list of column names, or None for all, got "
            f"{value!r}."
        )
    return tuple(value)


def check_prompt_settings(values: dict[str, Any]) -> None:
    """Check the settings of prompts among some keys of an `env_config`.

    Raises:
        ValueError: If a value is of the wrong type or could not work.
    """
    chat_template = values.get("chat_template")
    if chat_template is not None and not isinstance(chat_template, bool):
        raise ValueError(
            f"env_config['chat_template'] must be None, True or False, got {chat_template!r}."
        )
    template = values.get("prompt_template")
    if template is not None and "{prompt}" not in template:
        raise ValueError(
            f"env_config['prompt_template'] ({template!r}) does not contain {{prompt}}: "
            "the problem would not reach the model."
        )
    if "chat_template_kwargs" in values:
        values["chat_template_kwargs"] = _checked_kwargs(values["chat_template_kwargs"])


def _checked_kwargs(value: Any) -> dict[str, Any]:
    key = "env_config['chat_template_kwargs']"
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError(
            f'{key} must be a dict of names to values, such as {{"enable_thinking": False}}, got '
            f"{value!r}."
        )
    reserved = [name for name in value if name in _RESERVED_KWARGS]
    if reserved:
        raise ValueError(
            f"{key} has {reserved[0]!r}, which the environment sets itself. Allowed are the "
            "template's own variables, such as 'enable_thinking'."
        )
    try:
        return plain(value)
    except NotPlainError as error:
        raise ValueError(
            f"{key} must be plain data (texts, numbers, True, False, None, lists, dicts): {error}."
        ) from error
