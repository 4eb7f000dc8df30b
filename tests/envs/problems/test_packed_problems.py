"""Packed problems are the problems they were made of, in one process and in another."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.envs.problems import loading as problem_loading
from prefix_rft_rllib.envs.problems import receive_problem_set
from prefix_rft_rllib.envs.problems.packed_problems import PackedProblems
from prefix_rft_rllib.envs.problems.problem import Problem
from prefix_rft_rllib.envs.prompts.prompting import decode_response, encode_plain, load_tokenizer
from prefix_rft_rllib.envs.prompts.token_ids import TokenIds
from prefix_rft_rllib.envs.rows.plain_values import Extra
from prefix_rft_rllib.envs.token_env import TokenEnv
from tests.envs.problem_data import ROWS, load
from tests.envs.small_tokenizers import (
    save_byte_fallback,
    save_byte_level_bpe,
    save_lossy_words,
    save_metaspace_unigram,
)

TOKENIZERS = {
    "bpe": lambda directory: save_byte_level_bpe(directory, chat=True),
    "unigram": save_metaspace_unigram,
    "byte_fallback": save_byte_fallback,
    "words": save_lossy_words,
}
ids = st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple)
# All characters, halves of surrogate pairs among them: JSON may hold them.
texts = st.text(st.characters(codec=None) | st.just("\ud83d"), max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
columns = st.dictionaries(texts, values, max_size=3)
problems = st.builds(
    Problem,
    **dict.fromkeys(("problem_id", "domain", "prompt", "answer", "split", "source"), texts),
    prompt_ids=ids,
    demonstration_ids=st.lists(ids, max_size=3).map(tuple),
    num_long_demonstrations=st.integers(0, 5),
    demonstration_texts=st.lists(texts, max_size=2).map(tuple),
    demonstration_sources=st.lists(texts, max_size=2).map(tuple),
    extra=columns | columns.map(Extra),
    messages=st.lists(columns, max_size=2).map(tuple),
    source_number=st.integers(0, 3),
)


@given(st.lists(problems, max_size=6))
@settings(max_examples=60, deadline=None)
def test_problems_come_back_as_they_were(given_problems):
    packed = PackedProblems(given_problems)
    assert len(packed) == len(given_problems)
    assert packed == given_problems
    assert [dataclasses.astuple(p) for p in packed] == [
        dataclasses.astuple(p) for p in given_problems
    ]
    assert packed.texts("answer") == [problem.answer for problem in given_problems]
    assert packed.num_demonstrations().tolist() == [
        len(p.demonstration_ids) for p in given_problems
    ]
    has_many = packed.num_demonstrations() > 1
    selected = packed.where(has_many)
    assert selected == [p for p in given_problems if len(p.demonstration_ids) > 1]
    assert selected[1:] == list(selected)[1:]


def test_places_and_slices_are_those_of_a_tuple(config):
    packed = load(config).problems
    assert packed[-1].problem_id == "c"
    assert [p.problem_id for p in packed[:2]] == ["a", "b"]
    assert load(config).train[-1] == packed[2]
    for problems_of_three in (packed, load(config).train):
        for place in (3, -4):
            with pytest.raises(IndexError):
                problems_of_three[place]
    assert packed != load(config).train[:2]


@given(ids)
@settings(deadline=None)
def test_token_ids_behave_like_a_tuple(numbers):
    token_ids = TokenIds(numbers)
    assert token_ids == numbers
    assert numbers == token_ids
    assert hash(token_ids) == hash(numbers)
    assert tuple(token_ids) == numbers
    assert token_ids != (*numbers, 1)
    assert list(map(type, token_ids)) == [int] * len(numbers)
    assert token_ids[1:] == numbers[1:]
    assert (bool(token_ids), len(token_ids)) == (bool(numbers), len(numbers))
    assert np.concatenate([token_ids, token_ids]).tolist() == [*numbers, *numbers]
    if numbers:
        assert type(token_ids[-1]) is int
        assert (token_ids[-1], token_ids.index(numbers[0])) == (numbers[-1], 0)
        with pytest.raises(ValueError, match="read-only"):
            np.asarray(token_ids)[0] = 1


def shipped(value):
    """What an object store gives: the buffers read-only and not copied."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    given_buffers = [memoryview(bytes(buffer.raw())) for buffer in buffers]
    return pickle.loads(data, buffers=given_buffers), len(data), buffers


def test_a_problem_set_travels_in_buffers_and_its_readers_copy_nothing(config):
    problem_set = load(config)
    there, _, buffers = shipped(problem_set.problems)
    assert there == problem_set.problems
    assert sum(buffer.raw().nbytes for buffer in buffers) == problem_set.problems.num_bytes
    token_ids = np.asarray(there[2].demonstration_ids[1])
    assert not token_ids.flags.owndata
    assert not token_ids.flags.writeable
    # 200 demonstrations more are 200 times their tokens and letters, and no pickled objects.
    num_pickled = []
    for count in (10, 210):
        many = [
            dataclasses.replace(there[0], problem_id=str(n), extra={"n": n}) for n in range(count)
        ]
        num_pickled.append(shipped(PackedProblems(many))[1])
    assert num_pickled[1] - num_pickled[0] < 20


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_has_travelled_is_the_same(name, tmp_path):
    tokenizer = load_tokenizer(TOKENIZERS[name](tmp_path))
    there = shipped(tokenizer)[0]
    for text in ("2 + 3 = 5 so \\boxed{5} <|end|> é", "  a  b", "What is 2 + 3 ?"):
        token_ids = encode_plain(tokenizer, [text])[0]
        assert there(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert encode_plain(there, [text]) == [token_ids]
        assert decode_response(there, TokenIds(token_ids)) == decode_response(tokenizer, token_ids)
    assert there.chat_template == tokenizer.chat_template
    assert there.eos_token_id == tokenizer.eos_token_id
    directories = [tmp_path / "here", tmp_path / "there"]
    for directory, one in zip(directories, (tokenizer, there), strict=True):
        one.save_pretrained(directory)
    for file in directories[0].iterdir():
        assert file.read_bytes() == (directories[1] / file.name).read_bytes(), file.name


def test_a_received_problem_set_needs_no_file(config, monkeypatch):
    # As in another process: an empty cache, and the file is gone.
    here = load(config)
    there = shipped(here)[0]
    monkeypatch.setattr(problem_loading, "_cache", type(problem_loading._cache)())
    monkeypatch.setattr(problem_loading, "_received", {})
    Path(config["data"]).unlink()
    with pytest.raises(ValueError, match="there is no file"):
        load(config)
    receive_problem_set(there)
    env = TokenEnv(**config)
    assert env.problem_set is there
    assert there.problems == here.problems
    assert (there.settings, there.counts) == (here.settings, here.counts)
    assert [p.problem_id for p in there.train_with_demonstration] == ["a", "c"]
    options = {"problem_id": "c", "demonstration_index": 1, "num_prefix_tokens": 2}
    _, info = env.reset(options=options)
    expected = TokenIds([*here.by_id("c").prompt_ids, *here.by_id("c").demonstration_ids[1][:2]])
    assert tuple(env.state_ids.tolist()) == expected
    assert type(info["prompt_ids"]) is tuple
    # Other settings are another problem set.
    with pytest.raises(ValueError, match="there is no file"):
        load(config, max_response_tokens=31)
    assert len(ROWS) == len(env.problem_set.train)
