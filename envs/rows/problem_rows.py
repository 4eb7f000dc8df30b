"""Rows of files, datasets and functions, each with the place it came from."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prefix_rft_rllib.basics.import_paths import import_function
from prefix_rft_rllib.envs.rows.data_sources import DataSource
from prefix_rft_rllib.envs.rows.file_rows import FILE_ENDINGS, Rows, read_file

logger = logging.getLogger(__name__)

_LIKELY_FILE_ENDINGS = (".gz", ".txt", ".tsv", ".xlsx", ".arrow", ".zip", ".zst", ".parq")
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_ROWS_PER_MESSAGE = 100_000
_SHORT_NAMES = {
    "toy_arithmetic": "prefix_rft_rllib.envs.toy.toy_arithmetic:generate_rows",
    "toy_code": "prefix_rft_rllib.envs.toy.toy_code:generate_rows",
}


def read_rows(source: DataSource) -> Rows:
    """Yield the rows of one source in their order.

    Args:
        source: A file (`FILE_ENDINGS`), a directory or name for the `datasets` library, or the
            import path of a function that gives rows.

    Yields:
        Pairs of place ("file:line", lines counted from 1) and row.

    Raises:
        ValueError: If the source cannot be read; a bad line is named by file and line.
    """
    path = Path(source.data)
    function = _SHORT_NAMES.get(source.data, source.data)
    if path.is_dir():
        yield from _dataset_rows(source)
    elif source.data.endswith(FILE_ENDINGS):
        if not path.is_file():
            raise ValueError(f"env_config['data']: there is no file {source.data!r}.")
        if source.data_config:
            raise ValueError(
                f"data_config ({dict(source.data_config)!r}) has no meaning for the file "
                f"{source.data!r}: it is for functions and `datasets.load_dataset`. Remove it."
            )
        yield from read_file(path)
    elif path.is_file() or source.data.endswith(_LIKELY_FILE_ENDINGS) or path.is_absolute():
        raise ValueError(
            f"env_config['data']: cannot read {source.data!r}. Readable are existing files ending "
            f"in {', '.join(FILE_ENDINGS)}, directories saved by the datasets library, names of "
            "Hugging Face datasets, and functions that give rows, such as "
            "'my_package.my_module:rows'."
        )
    elif _IMPORT_PATH.fullmatch(function):
        yield from _function_rows(source, function)
    else:
        yield from _dataset_rows(source)


def fingerprint(source: DataSource) -> tuple[int, int] | None:
    """Return what changes when a file changes: modification time in ns and size in bytes."""
    path = Path(source.data)
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _dataset_rows(source: DataSource) -> Rows:
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
            f"env_config['data']: {source.data!r} is no file here and no function's import path "
            "('my_package.my_module:rows'), and the datasets library could not load it "
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


def _function_rows(source: DataSource, path: str) -> Rows:
    """Yield what a function of the user's gives; its failures are told as its own."""
    try:
        function = import_function(path, "function", "my_package.my_module:rows")
    except ValueError as error:
        raise ValueError(f"env_config['data']: {error}") from error
    what = f"env_config['data']: the function {source.data!r}"
    try:
        inspect.signature(function).bind(**source.data_config)
    except TypeError as error:
        raise ValueError(
            f"data_config ({dict(source.data_config)!r}) does not fit the function "
            f"{source.data!r}: {error}."
        ) from error
    except ValueError:  # built into Python, without a signature
        pass
    number = 0
    for number, row in enumerate(_results(function, source, what), start=1):
        if not isinstance(row, Mapping):
            raise ValueError(
                f"{what} gives {type(row).__name__} {row!r:.80} as row {number}. Every row must be "
                "a dict of column names to values."
            )
        if number % _ROWS_PER_MESSAGE == 0:
            logger.warning(
                "The function %r has given %d rows and goes on. All are held in memory before "
                "training starts: a function that never ends must end here.",
                source.data,
                number,
            )
        yield f"{source.data}:{number}", row
    if number == 0:
        raise ValueError(f"{what} gives no rows with data_config {dict(source.data_config)!r}.")


def _results(function: Callable[..., Any], source: DataSource, what: str) -> Iterator[Any]:
    number = 0
    try:
        for row in function(**source.data_config):
            number += 1
            yield row
    except Exception as error:  # whatever the user's function raises
        raise ValueError(
            f"{what} failed after {number} rows ({type(error).__name__}: {error})."
        ) from error
