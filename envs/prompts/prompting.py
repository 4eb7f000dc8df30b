"""Tokenizer and text: load, encode, decode, find lost text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from prefix_rft_rllib.basics.hub_models import model_directory

TOKENIZER = "env_config['tokenizer']"
"""The setting that names a tokenizer, in errors."""
_NUM_ENCODED_AT_A_TIME = 256


def load_tokenizer(directory: str) -> Any:
    """Load a transformers tokenizer and check that it can end a text.

    Args:
        directory: A directory with tokenizer files, or a name of the Hugging Face hub,
            "org/name" or "org/name@revision".

    Returns:
        The tokenizer.

    Raises:
        ValueError: If nothing is found there, or the tokenizer has no end token.
    """
    from transformers import AutoTokenizer

    path = model_directory(directory, TOKENIZER, with_weights=False)
    try:
        # Code of the model's author is never run.
        tokenizer = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and others
        raise ValueError(
            f"env_config['tokenizer'] ({directory!r}) holds no tokenizer that transformers can "
            f"load ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})."
        ) from error
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"The tokenizer in {directory!r} has no end token (eos_token): a response could never "
            "end. Set eos_token in tokenizer_config.json and save the tokenizer again."
        )
    return tokenizer


def smallest_vocab_size(tokenizer: Any) -> int:
    """Return the number of ids that covers every token: largest id + 1."""
    return max(len(tokenizer), max(tokenizer.get_vocab().values()) + 1)


def encode_plain(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Encode texts as they stand, without tokens that the tokenizer would add by itself."""
    if not texts:
        return []
    return tokenizer(
        list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
    )["input_ids"]


def encode_compactly(tokenizer: Any, texts: Sequence[str]) -> Iterator[np.ndarray]:
    """`encode_plain` for many texts, a part of them at a time: lists of Python ints are large.

    Args:
        tokenizer: A transformers tokenizer.
        texts: Any number of texts.

    Yields:
        The token ids of each text, in order. Shape (number of tokens,), int32.
    """
    for start in range(0, len(texts), _NUM_ENCODED_AT_A_TIME):
        for ids in encode_plain(tokenizer, texts[start : start + _NUM_ENCODED_AT_A_TIME]):
            yield np.array(ids, np.int32)


def decode_all(
    tokenizer: Any, rows: Sequence[Sequence[int]], *, skip_special_tokens: bool
) -> list[str]:
    """Decode many rows of tokens; for one row equal to `decode_response` if specials are left out.

    Args:
        tokenizer: A transformers tokenizer.
        rows: Token ids.
        skip_special_tokens: True to leave special tokens out, False to write them out.

    Returns:
        One text for each row.
    """
    return [
        text
        for start in range(0, len(rows), _NUM_ENCODED_AT_A_TIME)
        for text in tokenizer.batch_decode(
            [list(row) for row in rows[start : start + _NUM_ENCODED_AT_A_TIME]],
            skip_special_tokens=skip_special_tokens,
            clean_up_tokenization_spaces=False,
        )
    ]


def decode_response(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """Decode response tokens as the verifier sees them: special tokens left out."""
    return tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


def lost_piece(text: str, decoded: str) -> str | None:
    """Describe the first difference between a text and its decode(encode(text)).

    Returns:
        None if the two are equal, else a sentence part with the lost piece and its place.
    """
    if text == decoded:
        return None
    start = next(
        (i for i, (a, b) in enumerate(zip(text, decoded, strict=False)) if a != b),
        min(len(text), len(decoded)),
    )
    return (
        f"{text[start : start + 20]!r} at character {start} comes back as "
        f"{decoded[start : start + 20]!r}"
    )
