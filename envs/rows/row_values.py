"""The columns of one row, and the fields that stand in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefix_rft_rllib.basics.text import short_repr
from prefix_rft_rllib.envs.rows.messages import conversation_of, unzipped
from prefix_rft_rllib.envs.rows.plain_values import NotPlainError, is_missing, leaves, plain
from prefix_rft_rllib.envs.rows.row_forms import Form, form_of, nested_value

Conversation = list[dict[str, Any]]


@dataclass
class RowFields:
    """The columns of a row, and which of them were read.

    Attributes:
        values: Plain data by column.
        place: "file:line".
        form: Where the fields stand.
        unusable: Columns that are no plain data.
        used: The column or dotted path by field, as far as fields were found.
    """

    values: dict[str, Any]
    place: str
    form: Form
    unusable: dict[str, str]
    used: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, columns: Mapping[str, Any], place: str, fields: Mapping[str, str] | str | None
    ) -> RowFields:
        """Bring a row into plain data and recognise its form.

        Args:
            columns: Values by column, as the source gives them.
            place: "file:line".
            fields: As in `form_of`.
        """
        values: dict[str, Any] = {}
        unusable: dict[str, str] = {}
        for name, value in columns.items():
            try:
                values[str(name)] = plain(value)
            except NotPlainError as error:
                unusable[str(name)] = str(error)
        return cls(values, place, form_of(values, fields), unusable)

    def find(self, field_name: str) -> tuple[str, Any]:
        """Return the name under which a field stands in the row, and its value or None."""
        names = self.form.names[field_name]
        for name in names:
            for column in {name, name.split(".")[0]} & self.unusable.keys():
                raise self.error(column, f"cannot be read: {self.unusable[column]}.")
            found, value = nested_value(self.values, name)
            if not found and field_name in self.form.mapped:
                raise ValueError(
                    f"{self.place}: there is no field {name!r}, which env_config['fields'] names "
                    f"for {field_name!r}. {self.columns()}"
                )
            if not is_missing(value):
                self.used[field_name] = name
                return name, unzipped(value)
        return (names[0] if names else field_name), None

    def text(self, field_name: str) -> str | None:
        """Read a text field; None if it is absent, null or blank."""
        name, value = self.find(field_name)
        takes_list = field_name == "answer" and self.form.lists_answers
        if takes_list and isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, int) and not isinstance(value, bool) and field_name != "prompt":
            value = self._digits(name, value)
        if isinstance(value, bool | float):
            raise self.error(
                name,
                f"is the {type(value).__name__} {value!r}. Write it as text, for example "
                f'"{value}", so that its form is yours and nothing is rounded.',
            )
        if value is not None and not isinstance(value, str):
            raise self.error(
                name,
                f"must be text, got {type(value).__name__} {short_repr(value)}. A field inside it "
                "can be named in env_config['fields'] with dots, for example "
                '{"prompt": "prompt.1.content"}.',
            )
        return self.checked_text(name, value) if value is not None and value.strip() else None

    def _digits(self, name: str, number: int) -> str:
        try:
            return str(number)
        except ValueError as error:
            raise self.error(name, f"is a whole number that is too long: {error}.") from error

    def checked_text(self, name: str, text: str) -> str:
        """Return a text that UTF-8 can hold.

        Raises:
            ValueError: If there is half of a surrogate pair in it.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            found = text[error.start : error.start + 1]
            raise self.error(
                name,
                f"has half of a surrogate pair, {found!a}, at character {error.start}: no "
                "character, and no tokenizer can encode it. Mend the text; it was probably cut "
                "in the middle of a character.",
            ) from error
        return text

    def conversation(self, name: str, value: Any) -> Conversation | None:
        """Return the messages of a field; None if it is none."""
        try:
            messages = conversation_of(value)
        except ValueError as error:
            raise self.error(name, str(error)) from error
        for number, message in enumerate(messages or []):
            for path, leaf in leaves(message):
                if isinstance(leaf, str):
                    self.checked_text(f"{name}.{number}.{path}", leaf)
        return messages

    def error(self, name: str, what: str) -> ValueError:
        """An error of a field that names place and column."""
        return ValueError(f"{self.place}: field {name!r} {what}")

    def columns(self) -> str:
        """A sentence that lists the columns, for messages."""
        unusable = [f"{name} ({why})" for name, why in self.unusable.items()]
        return f"The row has: {', '.join([*self.values, *unusable])}."

    def missing(self, field_name: str) -> str:
        """Sentences that say that a field is missing, for messages."""
        names = " / ".join(self.form.names[field_name])
        return (
            f"the problem has no {field_name}: field {names!r} is absent, null or blank. "
            f"Map another field with env_config['fields']. {self.columns()}"
        )

    def others(self, wanted: Sequence[str] | None) -> dict[str, Any]:
        """The columns that were not read as a whole, or of them those that are wanted.

        Args:
            wanted: Columns; None for all.
        """
        read = {*self.used.values(), *self.form.repeated}
        return {
            name: value
            for name, value in self.values.items()
            if name not in read and (wanted is None or name in wanted)
        }
