"""Where a model's files are: a directory, or a name of the Hugging Face hub with a revision.

A name stands for one commit of its repository. Whoever starts a run pins it once (`pinned`), so
that every process and every later restore reads the files of the same commit.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

MODEL_PATH = "`model_path`"
"""The setting that names a model, in errors."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ANSWER_S = 5.0
# Safetensors alone: pickled weights could run code. A repository's folders hold the same weights
# in other forms.
_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
_OTHER_FORMS = ("*/*", "consolidated*")


@dataclass(frozen=True)
class HubName:
    """A repository of the Hugging Face hub at a revision.

    Attributes:
        name: "org/name".
        revision: Branch, tag or commit; None for the default branch.
    """

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


def with_revision(source: str, revision: str | None, setting: str = MODEL_PATH) -> str:
    """Write a source and its revision as one text, "org/name@revision".

    Args:
        source: A directory or a name, which may have its revision already.
        revision: The revision; None for none.
        setting: The name of the setting that gave `source`, for errors.

    Returns:
        The text that `pinned` and `model_directory` read.

    Raises:
        ValueError: If the revision belongs to a directory, or there are two of them.
    """
    if revision is None:
        return source
    if Path(source).is_dir():
        raise ValueError(
            f"A revision ({revision!r}) is given for {setting} ({source!r}), which is a "
            "directory: its files have one version. Leave the revision out."
        )
    if "@" in source:
        raise ValueError(
            f"{setting} ({source!r}) has a revision already, and {revision!r} is given beside "
            "it. Leave one of them out."
        )
    return f"{source}@{revision}"


def hub_name(source: str, setting: str = MODEL_PATH) -> HubName | None:
    """Read a source: None if it is a directory here, else a name of the hub.

    Args:
        source: A directory, "org/name" or "org/name@revision".
        setting: The name of the setting that gave it, for errors.

    Raises:
        ValueError: If it is neither.
    """
    if Path(source).is_dir():
        return None
    name, at, revision = source.partition("@")
    if not _NAME.fullmatch(name) or ".." in name or (at and not revision):
        raise ValueError(
            f"{setting} ({source!r}) is not a directory on this machine, and no name of the "
            "Hugging Face hub. Give the directory that `save_pretrained` wrote, or "
            "'org/name' or 'org/name@revision' (branch, tag or commit)."
        )
    return HubName(name, revision or None)


def pinned(source: str, setting: str = MODEL_PATH, *, with_weights: bool = True) -> str:
    """Name one commit, after its files were fetched if they were not in the local cache.

    Args:
        source: A directory, "org/name" or "org/name@revision".
        setting: The name of the setting that gave it, for errors.
        with_weights: Whether the weights are needed too, beside configuration and tokenizer.

    Returns:
        "org/name@commit"; a directory as it is.

    Raises:
        ValueError: If nothing is found, or the hub cannot be reached and the cache lacks it.
    """
    name = hub_name(source, setting)
    if name is None:
        return source
    commit = Path(_snapshot(name, setting, with_weights=with_weights)).name
    return str(HubName(name.name, commit))


def model_directory(source: str, setting: str = MODEL_PATH, *, with_weights: bool = True) -> str:
    """The directory of a model's files on this machine; arguments and errors are `pinned`'s."""
    name = hub_name(source, setting)
    return source if name is None else _snapshot(name, setting, with_weights=with_weights)


def _snapshot(name: HubName, setting: str, *, with_weights: bool) -> str:
    """The directory of a commit in the local cache, fetched if need be."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted: dict[str, Any] = {
        "allow_patterns": [*_FILES, *(["*.safetensors"] if with_weights else [])],
        "ignore_patterns": list(_OTHER_FORMS),
    }
    is_commit = name.revision is not None and _COMMIT.fullmatch(name.revision) is not None
    commit = None if is_commit or HF_HUB_OFFLINE else _asked_hub(name, setting)
    try:
        if commit is not None:
            return snapshot_download(name.name, revision=commit, **wanted)
        try:
            found = snapshot_download(
                name.name, revision=name.revision, local_files_only=True, **wanted
            )
        except LocalEntryNotFoundError:
            # The hub's own patience is a minute and more: it is asked briefly first.
            if HF_HUB_OFFLINE or not is_commit or _asked_hub(name, setting) is None:
                raise
            return snapshot_download(name.name, revision=name.revision, **wanted)
    except Exception as error:
        raise ValueError(_not_found(name, setting, error)) from error
    if not is_commit and not HF_HUB_OFFLINE:
        logger.warning("The Hugging Face hub does not answer: using %s from the cache.", found)
    return found


def _asked_hub(name: HubName, setting: str) -> str | None:
    """The commit that a branch or tag stands for now; None if the hub is silent."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(name.name, revision=name.revision, timeout=_ANSWER_S)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ValueError(
            f"{setting} ({str(name)!r}) is not a directory on this machine, and the Hugging Face "
            f"hub has no such model or revision for you ({_first_line(error)}). Mend the name or "
            "the path; a private or gated model needs `hf auth login`."
        ) from error
    except Exception as error:  # no network, a proxy, the hub's own trouble
        logger.info("The hub was not asked for %s: %s", name, error)
        return None
    return info.sha


def _not_found(name: HubName, setting: str, error: Exception) -> str:
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import LocalEntryNotFoundError

    reason = f"{type(error).__name__}: {_first_line(error)}"
    if isinstance(error, LocalEntryNotFoundError):
        reason = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "the hub does not answer"
    revision = "" if name.revision is None else f" --revision {name.revision}"
    return (
        f"{setting} ({str(name)!r}) is neither a directory here nor a model in the local Hugging "
        f"Face cache, and could not be fetched from the hub ({reason}). If you mean a directory "
        "that `save_pretrained` wrote, mend the path. If you mean the hub, run "
        f"`hf download {name.name}{revision}` where there is a network, and let HF_HOME or "
        "HF_HUB_CACHE name that cache here."
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
