"""Rows of files, datasets and generators, each with the place it came from."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefix_rft_rllib.envs.settings import DataSource

GENERATORS = ("toy_arithmetic", "toy_code")
_FILE_ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")
_LIKELY_FILE_ENDINGS = (*_FILE_ENDINGS, ".json", ".gz", ".csv", ".txt")

Row = Mapping[str, Any]


def read_rows(source: DataSource) -> Iterator[tuple[str, Row]]:
    """Yield the rows of one source in their order.

    Args:
        source: A JSONL file (optionally gzip-compressed), a Parquet file, a directory or name for
            the `datasets` library, or the name of a generator.

    Yields:
        Pairs of place ("file:line", lines counted from 1) and row.

    Raises:
        ValueError: If the source cannot be read; a bad line is named by file and line.
    """
    path = Path(source.data)
    if source.data in GENERATORS:
        yield from _generated_rows(source)
    elif path.is_dir():
        yield from _dataset_rows(source)
    elif source.data.endswith(_FILE_ENDINGS):
        if not path.is_file():
            raise ValueError(f"env_config['data']: there is no file {source.data!r}.")
        if source.data_config:
            raise ValueError(
                f"data_config ({dict(source.data_config)!r}) has no meaning for the file "
                f"{source.data!r}: it is for generators and `datasets.load_dataset`. Remove it."
            )
        yield from _parquet_rows(path) if path.suffix == ".parquet" else _jsonl_rows(path)
    elif path.is_file() or source.data.endswith(_LIKELY_FILE_ENDINGS) or path.is_absolute():
        raise ValueError(
            f"env_config['data']: cannot read {source.data!r}. Readable are existing files ending "
            f"in {', '.join(_FILE_ENDINGS)}, directories saved by the datasets library, names of "
            f"Hugging Face datasets, and the generators {', '.join(GENERATORS)}."
        )
    else:
        yield from _dataset_rows(source)


def fingerprint(source: DataSource) -> tuple[int, int] | None:
    """Return what changes when a file changes: modification time in ns and size in bytes."""
    path = Path(source.data)
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
        try:
            # Iterating bytes splits at "\n" only; str.splitlines would also split at U+2028.
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", _json_row(line, f"{path}:{number}")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a complete gzip file: {error}.") from error


def _json_row(line: bytes, place: str) -> Row:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: the line is not UTF-8 text ({error}).") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{place}: the line is not valid JSON ({error}).") from error
    if not isinstance(row, dict):
        raise ValueError(f"{place}: a row must be a JSON object, got {type(row).__name__}.")
    return row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    # pyarrow comes with the datasets library; reading directly needs no cache directory.
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a readable Parquet file: {error}.") from error
    number = 0
    for batch in table.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            number += 1
            yield f"{path}:{number}", row


def _dataset_rows(source: DataSource) -> Iterator[tuple[str, Row]]:
    import datasets

    directory = Path(source.data)
    try:
        if directory.is_dir() and any(
            (directory / name).is_file() for name in ("dataset_dict.json", "state.json")
        ):
            dataset = datasets.load_from_disk(str(directory))
        else:
            dataset = datasets.load_dataset(source.data, **source.data_config)
    except Exception as error:  # the library raises many kinds, none of them documented
        raise ValueError(
            f"env_config['data']: {source.data!r} is no file here and no generator "
            f"({', '.join(GENERATORS)}), and the datasets library could not load it "
            f"({type(error).__name__}: {error}). Check the spelling, data_config "
            f"({dict(source.data_config)!r}) and the network, or give a local file."
        ) from error
    if isinstance(dataset, Mapping):
        split = source.data_config.get("split")
        if split in dataset:
            dataset = dataset[split]
        elif len(dataset) == 1:
            dataset = next(iter(dataset.values()))
        else:
            raise ValueError(
                f"The dataset {source.data!r} has the splits {', '.join(map(str, dataset))}: "
                f'choose one with data_config={{"split": ...}}.'
            )
    for number, row in enumerate(dataset, start=1):
        yield f"{source.data}:{number}", row


def _generated_rows(source: DataSource) -> Iterator[tuple[str, Row]]:
    from prefix_rft_rllib.envs import toy_arithmetic, toy_code

    generators: dict[str, Callable[..., Sequence[Row]]] = {
        "toy_arithmetic": toy_arithmetic.generate_rows,
        "toy_code": toy_code.generate_rows,
    }
    try:
        rows = generators[source.data](**source.data_config)
    except TypeError as error:
        raise ValueError(
            f"data_config ({dict(source.data_config)!r}) does not fit the generator "
            f"{source.data!r}: {error}."
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{source.data}:{number}", row


def nested_value(row: Row, name: str) -> tuple[bool, Any]:
    """Look up a field by name or by a dotted path such as "prompt.1.content".

    Args:
        row: A row; a key that itself contains dots is found first.
        name: A key, or keys and list positions joined by dots.

    Returns:
        Whether the field is there, and its value.
    """
    if name in row:
        return True, row[name]
    value: Any = row
    for part in name.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return False, None
    return True, value
