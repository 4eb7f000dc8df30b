"""Fixtures: tokenizer directories and small data files."""

import json
from pathlib import Path

import pytest

from tests.envs.problem_data import ROWS, SAME_BOX
from tests.envs.small_tokenizers import (
    save_byte_level_bpe,
    save_lossy_words,
    save_metaspace_unigram,
)


@pytest.fixture(scope="session")
def bpe(tmp_path_factory) -> str:
    return save_byte_level_bpe(tmp_path_factory.mktemp("bpe"))


@pytest.fixture(scope="session")
def chat_bpe(tmp_path_factory) -> str:
    return save_byte_level_bpe(tmp_path_factory.mktemp("chat_bpe"), chat=True)


@pytest.fixture(scope="session")
def unigram(tmp_path_factory) -> str:
    return save_metaspace_unigram(tmp_path_factory.mktemp("unigram"))


@pytest.fixture(scope="session")
def lossy(tmp_path_factory) -> str:
    return save_lossy_words(tmp_path_factory.mktemp("lossy"))


@pytest.fixture
def write_rows(tmp_path):
    def write(rows, name: str = "data.jsonl") -> str:
        path = Path(tmp_path) / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def config(bpe, write_rows) -> dict:
    """A small env_config: three problems, a fake verifier."""
    return {
        "data": write_rows(ROWS),
        "tokenizer": bpe,
        "max_prompt_tokens": 24,
        "max_response_tokens": 32,
        "verifier": SAME_BOX,
    }
