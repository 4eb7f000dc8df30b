"""Conversations: lists of `{"role": ..., "content": ...}`, as chat templates take them."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]

_KEYS_WITH_TEXT = ("reasoning_content", "reasoning", "thinking", "tool_calls")


def decoded(value: Any) -> Any:
    """Decode a text that holds a list or a dict, as tables without nested columns store them.

    Args:
        value: Anything. A text counts if it is JSON or a Python literal of a list or dict as a
            whole.

    Returns:
        The list or dict; `value` itself if it is no such text.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not (text.startswith(("[", "{")) and text.endswith(("]", "}"))):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, list | dict) else value
    return value


def unzipped(value: Any) -> Any:
    """Turn a dict of lists of roles and contents, as `datasets` stores sequences, into messages.

    Args:
        value: Anything.

    Returns:
        The list of messages; `value` itself if it is no such dict.
    """
    columns = list(value.values()) if isinstance(value, Mapping) and _is_message(value) else []
    if not columns or not all(isinstance(column, list) for column in columns):
        return value
    if len({len(column) for column in columns}) > 1:
        return value
    return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]


def is_conversation(value: Any) -> bool:
    """Return whether a value is a list of messages; null entries, as tables have them, are left."""
    if not isinstance(value, list):
        return False
    messages = [message for message in value if message is not None]
    return bool(messages) and all(_is_message(message) for message in messages)


def _is_message(value: Any) -> bool:
    has_text = isinstance(value, Mapping) and ("content" in value or "tool_calls" in value)
    return has_text and "role" in value


def conversation_of(value: Any) -> list[dict[str, Any]] | None:
    """Return the messages that a field's value holds.

    Args:
        value: A list of messages, or a text that holds one.

    Returns:
        The messages with their contents as texts and without null keys; None if `value` is
        something else.

    Raises:
        ValueError: If a message has no role, or a content that is no text.
    """
    found = unzipped(decoded(value))
    if is_conversation(found):
        return [_checked(message, number) for number, message in enumerate(found) if message]
    looks_like_one = isinstance(found, str) and found.lstrip().startswith("[{")
    if looks_like_one and any(f"{quote}role{quote}" in found for quote in "'\""):
        raise ValueError(
            f"is a text that looks like a list of messages and cannot be read as one: {found!r:.80}"
            ". Write it as JSON."
        )
    return None


def _checked(message: Message, number: int) -> dict[str, Any]:
    kept = {str(key): value for key, value in message.items() if value is not None}
    role = kept.get("role")
    if not isinstance(role, str) or not role:
        raise ValueError(f"message {number} has the role {role!r}, which must be a text.")
    return {**kept, "role": role, "content": _content(message.get("content"), number)}


def _content(content: Any, number: int) -> str:
    """Return a content as text; its parts, where it comes in parts, one after the other."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [_part_text(part) for part in parts]
    if any(text is None for text in texts):
        kinds = [p.get("type") if isinstance(p, Mapping) else type(p).__name__ for p in parts]
        raise ValueError(
            f"message {number} has a content with parts of the types {kinds!r}. Only text can be "
            'used: a text, or a list of {"type": "text", "text": ...}.'
        )
    return "".join(text for text in texts if text is not None)


def _part_text(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", "text") == "text":
        text = part.get("text")
        return text if isinstance(text, str) else None
    return None


def check_prompt(messages: Sequence[Message]) -> None:
    """Check that a model can go on after these messages.

    Raises:
        ValueError: If nobody asks anything, or the last message belongs to a role that is not
            answered.
    """
    roles = [message["role"] for message in messages]
    if not any(m["role"] == "user" and m["content"].strip() for m in messages):
        raise ValueError(f"has no user message with a text; the roles are {roles!r}.")
    if roles[-1] not in ("user", "tool", "assistant"):
        raise ValueError(
            f"ends with a message of the role {roles[-1]!r}. The last message must be the user's, "
            "or the beginning of the assistant's answer."
        )


def question_of(messages: Sequence[Message]) -> str:
    """Return the text of the last user message."""
    return next(m["content"] for m in reversed(messages) if m["role"] == "user")


def answer_text(messages: Sequence[Message]) -> str:
    """Return the text of a demonstration that is given as one assistant message.

    Raises:
        ValueError: If it is not one, or has text outside its content.
    """
    roles = [message["role"] for message in messages]
    if roles != ["assistant"]:
        raise ValueError(
            f"has messages of the roles {roles!r}. A demonstration is one assistant message; "
            "several demonstrations are a list of lists."
        )
    outside = [key for key in _KEYS_WITH_TEXT if messages[0].get(key)]
    if outside:
        raise ValueError(
            f"has a message with {outside[0]!r} beside its content, which would be lost. Write the "
            "whole response into the content."
        )
    return messages[0]["content"]


def split_conversation(
    messages: Sequence[Message],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Split a whole conversation into the prompt and the last assistant message, if it ends so."""
    kept = [dict(message) for message in messages]
    is_answered = kept[-1]["role"] == "assistant"
    return (kept[:-1], kept[-1:]) if is_answered else (kept, [])
