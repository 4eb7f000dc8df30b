"""Checks of the keys of `env_config` that say how rows become prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefix_rft_rllib.envs.rows.plain_values import NotPlainError, plain
from prefix_rft_rllib.envs.rows.row_forms import FIELDS

_RESERVED_KWARGS = (
    *("conversation", "messages", "chat_template", "tokenize", "add_generation_prompt"),
    *("continue_final_message", "padding", "truncation", "max_length", "return_tensors"),
    *("return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"),
)


def checked_fields(value: Mapping[str, str] | str | None) -> Mapping[str, str] | str | None:
    """Check `fields`, whose range is checked already.

    Args:
        value: A form's name, a dict from our field names to the data's, or None.

    Returns:
        The same; None for an empty dict.

    Raises:
        ValueError: If the dict has other names than ours, or maps one to no name.
    """
    if not isinstance(value, Mapping):
        return value
    for ours, theirs in value.items():
        if ours not in FIELDS or not isinstance(theirs, str) or not theirs:
            raise ValueError(
                f"env_config['fields'] has {ours!r}: {theirs!r}. It maps our field names "
                f"({', '.join(FIELDS)}) to the names of your data."
            )
    return dict(value) or None


def check_prompt_template(template: str | None) -> None:
    """Check that the problem has a place in a template.

    Raises:
        ValueError: If it has none.
    """
    if template is not None and "{prompt}" not in template:
        raise ValueError(
            f"env_config['prompt_template'] ({template!r}) does not contain {{prompt}}: "
            "the problem would not reach the model."
        )


def checked_template_kwargs(value: Mapping[str, Any]) -> dict[str, Any]:
    """Check the variables of a chat template.

    Args:
        value: Their values by name.

    Returns:
        The same as plain data.

    Raises:
        ValueError: If the environment sets one itself, or a value is no plain data.
    """
    key = "env_config['chat_template_kwargs']"
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
