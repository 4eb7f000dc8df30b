"""Which tokens end a response: those of the tokenizer and of the model's files."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prefix_rft_rllib.envs.prompts.prompting import encode_plain
from prefix_rft_rllib.envs.prompts.token_ids import TokenIds

logger = logging.getLogger(__name__)

GENERATION_CONFIG_FILE = "generation_config.json"
_MODEL_CONFIG_FILE = "config.json"
_TEXT_PARTS = ("text_config", "llm_config", "language_config")


@dataclass(frozen=True)
class EndTokens:
    """The tokens that end a response.

    Attributes:
        ids: All of them, increasing; each ends a response.
        of_turn: The one that demonstrations end with.
    """

    ids: tuple[int, ...]
    of_turn: int

    def ended(self, token_ids: np.ndarray, source: str) -> TokenIds:
        """Add the end token of a turn, unless the text ends with an end token already.

        Args:
            token_ids: A demonstration. Shape (N,), int32.
            source: "file:line" of it, for errors.

        Returns:
            The demonstration, its only end token the last.

        Raises:
            ValueError: If an end token is inside.
        """
        places = np.flatnonzero(np.isin(token_ids, self.ids))
        if len(places) and places[0] < len(token_ids) - 1:
            raise ValueError(
                f"{source}: field 'demonstration' holds an end token (id "
                f"{token_ids[places[0]]}) inside the text, at token {places[0]}: the response "
                "would end there. Remove it."
            )
        return TokenIds(token_ids if len(places) else np.append(token_ids, np.int32(self.of_turn)))

    def without(self, token_ids: Sequence[int]) -> Sequence[int]:
        """A response without the end token that closes it, if one does."""
        is_ended = len(token_ids) > 0 and token_ids[-1] in self.ids
        return token_ids[:-1] if is_ended else token_ids


def declared_end_ids(directory: str | Path) -> tuple[int, ...]:
    """Read the end tokens that a model's files name.

    `generation_config.json` says what ends generation. Where it is absent or names none,
    `config.json` does, of a model with parts its text part too.

    Args:
        directory: The model's directory. Files may be missing.

    Returns:
        The ids, increasing, each once; empty if none is named.

    Raises:
        ValueError: If a file names something that is no token id.
    """
    generation = generation_settings(directory)
    found = _ids(generation.get("eos_token_id"), Path(directory) / GENERATION_CONFIG_FILE)
    if found:
        return found
    path = Path(directory) / _MODEL_CONFIG_FILE
    model = _read(path)
    parts = [model, *(model[p] for p in _TEXT_PARTS if isinstance(model.get(p), dict))]
    return tuple(sorted({i for part in parts for i in _ids(part.get("eos_token_id"), path)}))


def generation_settings(directory: str | Path) -> dict[str, Any]:
    """Read a model's `generation_config.json`; empty if there is none.

    Raises:
        ValueError: If it is no JSON object.
    """
    return _read(Path(directory) / GENERATION_CONFIG_FILE)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}.")
    return content


def _ids(value: Any, path: Path) -> tuple[int, ...]:
    listed = value if isinstance(value, list) else [] if value is None else [value]
    for item in listed:
        if isinstance(item, bool) or not isinstance(item, int) or item < 0:
            raise ValueError(
                f"{path}: `eos_token_id` is {value!r}. It must be a token id, a list of token ids "
                "(whole numbers of at least 0) or null. Mend the file, or name the tokens in "
                "env_config['eos_token_ids']."
            )
    return tuple(sorted(set(listed)))


def end_tokens(tokenizer: Any, behind: str, declared: Sequence[int], vocab_size: int) -> EndTokens:
    """The end tokens of a run.

    Args:
        tokenizer: A tokenizer with an `eos_token_id`.
        behind: What the chat template writes behind an assistant's text; "" without a template.
        declared: Further end tokens, those of the model's files.
        vocab_size: Ids are below it.

    Returns:
        The tokenizer's and the declared ones. The end of a turn is the first of them that the
        chat template writes behind an assistant's text; without such a template the tokenizer's.

    Raises:
        ValueError: If an id is outside the vocabulary.
    """
    ids = tuple(sorted({int(tokenizer.eos_token_id), *map(int, declared)}))
    for token_id in ids:
        if not 0 <= token_id < vocab_size:
            raise ValueError(
                f"The end token {token_id} is outside the vocabulary of {vocab_size} ids: it could "
                "never be sampled. Mend `eos_token_id` of the model's generation_config.json (or "
                "of its config.json or tokenizer), or name the end tokens in "
                "env_config['eos_token_ids']."
            )
    for token_id in encode_plain(tokenizer, [behind])[0] if behind else []:
        if token_id in ids:
            return EndTokens(ids, token_id)
    if behind.strip():
        logger.warning(
            "The chat template ends an assistant's turn with %r, which holds no end token (%s). "
            "Demonstrations end with %r; a response that ends as the template does goes on to its "
            "token budget. Name the template's token in env_config['eos_token_ids'] if that is "
            "not wanted.",
            behind,
            ", ".join(map(str, tokenizer.convert_ids_to_tokens(list(ids)))),
            tokenizer.eos_token,
        )
    return EndTokens(ids, int(tokenizer.eos_token_id))
