"""Rows of files: JSON Lines, JSON lists, CSV and Parquet, the texts also gzip-compressed."""

from __future__ import annotations

import csv
import gzip
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prefix_rft_rllib.envs.rows.plain_values import path_where

Row = Mapping[str, Any]
Rows = Iterator[tuple[str, Row]]

_TOO_MANY_DIGITS = "integer string conversion"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_file(path: Path) -> Rows:
    """Yield the rows of a file whose name ends in one of `FILE_ENDINGS`.

    Args:
        path: An existing file.

    Yields:
        Pairs of place and row. The place is "file:line"; in a JSON list and in Parquet "file:n" is
        the nth row.

    Raises:
        ValueError: If the file cannot be read; a bad line is named, and where it is known, the
            field.
    """
    name = path.name.removesuffix(".gz")
    ending = next(ending for ending in _READERS if name.endswith(ending))
    return _READERS[ending](path)


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a text file, each with its line break."""
    with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
        try:
            # Iterating bytes splits at "\n" only; str.splitlines would also split at U+2028.
            for number, line in enumerate(file):
                yield line.removeprefix(_BYTE_ORDER_MARK) if number == 0 else line
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a complete gzip file: {error}.") from error


def _jsonl_rows(path: Path) -> Rows:
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            place = f"{path}:{number}"
            yield place, _object(_json(line, place, "the line"), place)


def _json_rows(path: Path) -> Rows:
    """A list of objects; a file of one object a line may have this ending too."""
    lines = _lines(path)
    first = next((line for line in lines if line.strip()), b"")
    if first.lstrip()[:1] != b"[":
        try:
            yield from _jsonl_rows(path)
        except ValueError as error:
            raise ValueError(
                f"{error} A .json file must be a list of objects, [{{...}}, {{...}}], or hold one "
                "object a line. A list inside an object must be taken out first."
            ) from error
        return
    rows = _json(b"".join([first, *lines]), str(path), "the file")
    if not isinstance(rows, list):
        raise ValueError(f"{path}: the file must be a list of objects.")
    for number, row in enumerate(rows, start=1):
        yield f"{path}:{number}", _object(row, f"{path}:{number}")


def _object(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        hint = (
            " A list of objects belongs into a file named .json." if isinstance(row, list) else ""
        )
        raise ValueError(f"{place}: a row must be a JSON object, got {type(row).__name__}.{hint}")
    return row


def _json(data: bytes, place: str, what: str) -> Any:
    """Parse JSON; what is wrong is named with its field, if the rest can be read."""
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError as error:
        field = _field_of(data.decode(errors="surrogateescape"), _is_no_text)
        raise ValueError(f"{place}:{field} {what} is not UTF-8 text ({error}).") from error
    except RecursionError as error:
        raise ValueError(f"{place}: {what} is nested too deep ({error}).") from error
    except ValueError as error:
        if _TOO_MANY_DIGITS in str(error):
            field = _field_of(data.decode(), lambda value: isinstance(value, _LongNumber))
            raise ValueError(
                f"{place}:{field} a whole number has more than "
                f"{sys.get_int_max_str_digits():,} digits, the most that Python reads. Write it "
                "as text, in quotes."
            ) from error
        raise ValueError(f"{place}: {what} is not valid JSON ({error}).") from error


class _LongNumber(str):
    """The digits of a whole number that Python does not convert."""


def _whole_number(digits: str) -> Any:
    limit = sys.get_int_max_str_digits()
    return _LongNumber(digits) if 0 < limit < len(digits.lstrip("-")) else int(digits)


def _is_no_text(value: Any) -> bool:
    return isinstance(value, str) and re.search("[\udc80-\udcff]", value) is not None


def _field_of(text: str, holds: Callable[[Any], bool]) -> str:
    """Name the field that holds something bad: " field 'answer':", or nothing if it is unknown."""
    try:
        found = path_where(json.loads(text, parse_int=_whole_number), holds)
    except (ValueError, RecursionError):
        found = None
    return f" field {found!r}:" if found else ""


def _csv_rows(path: Path) -> Rows:
    csv.field_size_limit(2**31 - 1)  # the module's own limit is below a long demonstration
    reader = csv.reader(_decoded_lines(path), strict=True)
    header: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ValueError(
                f"{path}:{start}: the line is not valid CSV ({error}). Columns are separated by "
                "commas, lines end with a line feed; a text with one of these or with quotes "
                'stands in double quotes, and a double quote in it is written twice, "".'
            ) from error
        if cells is None:
            break
        if not cells:
            continue
        if header is None:
            header = _checked_header(cells, f"{path}:{start}")
        elif len(cells) != len(header):
            raise ValueError(
                f"{path}:{start}: the row has {len(cells)} columns, the header {len(header)}. A "
                "text with commas or line breaks must stand in double quotes."
            )
        else:
            yield (
                f"{path}:{start}",
                {name: cell if cell else None for name, cell in zip(header, cells, strict=True)},
            )


def _decoded_lines(path: Path) -> Iterator[str]:
    for number, line in enumerate(_lines(path), start=1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}:{number}: the line is not UTF-8 text ({error}). Save the table as UTF-8."
            ) from error


def _checked_header(names: list[str], place: str) -> list[str]:
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise ValueError(f"{place}: the header has the column {twice[0]!r} twice.")
    for separator in (";", "\t"):
        if len(names) == 1 and separator in names[0]:
            raise ValueError(
                f"{place}: the header is one column, {names[0]!r:.80}, with {separator!r} in it. "
                "Columns must be separated by commas."
            )
    return names


def _parquet_rows(path: Path) -> Rows:
    # pyarrow comes with the datasets library; reading directly needs no cache directory.
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a readable Parquet file: {error}.") from error
    number = 0
    for batch in table.to_batches(max_chunksize=1024):
        for row in _plain_batch(batch, f"{path}:{number + 1}"):
            number += 1
            yield f"{path}:{number}", row


def _plain_batch(batch: Any, place: str) -> list[Row]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError as error:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            for number in range(len(column)):
                try:
                    column[number].as_py()
                except UnicodeDecodeError:
                    path, _, first = place.rpartition(":")
                    raise ValueError(
                        f"{path}:{int(first) + number}: field {name!r}: the text is not UTF-8 "
                        f"({error})."
                    ) from error
        raise


_READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
FILE_ENDINGS = (*_READERS, ".jsonl.gz", ".json.gz", ".csv.gz")
"""How the names of readable files end."""
