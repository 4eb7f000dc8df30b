"""The forms in which the field stores problems: which column is what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prefix_rft_rllib.envs.rows.messages import conversation_of, decoded

FIELDS = (
    *("prompt", "answer", "demonstration", "messages", "id", "problem_id", "domain"),
    *("tests", "entry_point"),
)
"""What a row is read for."""

_COMMON = {
    "prompt": ("question", "problem", "prompt"),
    "answer": ("answer", "solution"),
    "demonstration": ("demonstration", "demonstrations"),
    "messages": (),
    "id": ("id",),
    "problem_id": ("problem_id",),
    "domain": ("domain",),
    "tests": ("tests",),
    "entry_point": ("entry_point",),
}


@dataclass(frozen=True)
class Form:
    """Where the fields of a row stand.

    Attributes:
        name: Of a preset, "plain", or "fields" if the user's own names are among them.
        names: By field the columns or dotted paths that may hold it; the first one counts whose
            value is not null.
        mapped: Fields whose column must be there, since the user has named it.
        verdicts: Lists beside the demonstrations that say which of them are right, each a list of
            bool; a demonstration is used if one of them says so. Without any, all are.
        lists_answers: Whether an answer may be a list with one text, as verl's scorers take it.
        repeated: Columns that hold again what a field holds; the verifier does not get them.
    """

    name: str
    names: Mapping[str, tuple[str, ...]]
    mapped: frozenset[str] = frozenset()
    verdicts: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    lists_answers: bool = False


def _form(name: str, changes: Mapping[str, tuple[str, ...]], **more: Any) -> Form:
    return Form(name, {**_COMMON, **changes}, **more)


_VERL = {"prompt": ("prompt",), "answer": ("reward_model.ground_truth",)}
PRESETS = {
    form.name: form
    for form in (
        _form("verl", _VERL, lists_answers=True),
        _form("luffy", {**_VERL, "demonstration": ("target",)}, lists_answers=True),
        _form(
            "openr1",
            {
                "prompt": ("problem",),
                "answer": ("answer",),
                "demonstration": ("generations",),
                "id": ("uuid",),
            },
            verdicts=("correctness_math_verify", "correctness_llama"),
            repeated=("messages",),
        ),
        _form(
            "trl",
            {
                "prompt": ("prompt",),
                "answer": ("answer", "solution", "ground_truth"),
                "demonstration": ("completion", "demonstration", "demonstrations"),
                "messages": ("messages",),
            },
        ),
    )
}
"""Presets of `fields` by name."""
PLAIN = Form("plain", _COMMON)


def form_of(row: Mapping[str, Any], fields: Mapping[str, str] | str | None) -> Form:
    """Return the form of a row: the one that the settings name, else the one it is found to have.

    Args:
        row: Plain data.
        fields: The setting: a preset's name, our field names to columns, or None.

    Returns:
        The form.
    """
    if isinstance(fields, str):
        return PRESETS[fields]
    found = _recognised(row)
    if not fields:
        return found
    names = {**found.names, **{ours: (theirs,) for ours, theirs in fields.items()}}
    verdicts = () if "demonstration" in fields else found.verdicts
    repeated = found.repeated if verdicts else ()
    return replace(
        found,
        name="fields",
        names=names,
        mapped=frozenset(fields),
        verdicts=verdicts,
        repeated=repeated,
    )


def _recognised(row: Mapping[str, Any]) -> Form:
    """Tell the form by the columns that no other form has."""
    reward_model = decoded(row.get("reward_model"))
    if isinstance(reward_model, Mapping) and "ground_truth" in reward_model and "prompt" in row:
        return PRESETS["luffy" if "target" in row else "verl"]
    verdicts = PRESETS["openr1"].verdicts
    if "generations" in row and "problem" in row and any(name in row for name in verdicts):
        return PRESETS["openr1"]
    if "prompt" in row and ("completion" in row or _is_conversation(row["prompt"])):
        return PRESETS["trl"]
    has_prompt = any(row.get(name) is not None for name in _COMMON["prompt"])
    if not has_prompt and _is_conversation(row.get("messages")):
        return PRESETS["trl"]
    return PLAIN


def _is_conversation(value: Any) -> bool:
    try:
        return conversation_of(value) is not None
    except ValueError:  # one that is broken; reading it says how
        return True


def nested_value(row: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """Look up a field by name or by a dotted path such as "prompt.1.content".

    Args:
        row: Plain data; a key that itself contains dots is found first.
        name: A key, or keys and list positions joined by dots. Texts that hold lists or dicts are
            looked into.

    Returns:
        Whether the field is there, and its value.
    """
    if name in row:
        return True, row[name]
    value: Any = row
    for part in name.split("."):
        value = decoded(value)
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return False, None
    return True, value
