"""The wire format between attempt and judge."""

import math
import struct
from collections import OrderedDict, namedtuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.envs.sandbox.plain_data import (
    MAX_DEPTH,
    Handle,
    PlainDataError,
    decode,
    encode,
)

KINDS = (
    *(type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, set),
    *(frozenset, dict),
)

texts = st.text(st.characters(blacklist_categories=()))  # lone surrogates too
hashable = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)
values = st.recursive(
    hashable | st.complex_numbers() | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.sets(hashable, max_size=4)
    ),
    max_leaves=25,
)


def kinds_in(value):
    yield type(value)
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from kinds_in(item)


@given(values)
def test_every_plain_value_comes_back_as_it_was(value):
    # repr tells NaN from NaN, 0.0 from -0.0 and True from 1; sets have no order of their own.
    back = decode(encode(value))
    assert sorted(repr(back)) == sorted(repr(value))
    assert type(back) is type(value)


def test_integers_of_any_size_come_back():
    for value in (0, -1, 127, 128, -128, -129, 2**63, -(2**63), 10**5000):
        assert decode(encode(value)) == value


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_random_bytes_give_plain_data_or_the_one_error(data):
    try:
        value = decode(data)
    except PlainDataError:
        return
    assert set(kinds_in(value)) <= set(KINDS)


@given(values, st.data())
@settings(max_examples=500)
def test_damaged_bytes_give_plain_data_or_the_one_error(value, data):
    damaged = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged)))
        change = data.draw(st.sampled_from(["put", "cut", "set"]))
        byte = data.draw(st.integers(0, 255))
        if change == "put":
            damaged.insert(place, byte)
        elif change == "cut":
            del damaged[place:]
        elif place < len(damaged):
            damaged[place] = byte
    try:
        back = decode(bytes(damaged))
    except PlainDataError:
        return
    assert set(kinds_in(back)) <= set(KINDS)


def test_a_claimed_length_allocates_nothing():
    for tag in b"lteczdsbai":
        with pytest.raises(PlainDataError):
            decode(bytes([tag]) + struct.pack("<I", 2**32 - 1))


def test_depth_and_size_are_limited():
    value = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert decode(encode(value)) == value
    with pytest.raises(PlainDataError, match="nested"):
        encode([value])
    with pytest.raises(PlainDataError, match=r"nested|malformed"):
        decode(b"l\1\0\0\0" * 100_000 + b"N")
    for large in ("x" * 1000, 1 << 8000, [0] * 1000, b"x" * 1000, dict.fromkeys(range(400))):
        with pytest.raises(PlainDataError, match="too large"):
            encode(large, max_bytes=500)


class Liar(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    "value",
    [object(), Liar(3), OrderedDict(a=1), namedtuple("Pair", "a b")(1, 2), range(3), int, len],
)
def test_other_types_are_refused_derived_ones_too(value):
    for wrapped in (value, [value], {"a": value}):
        with pytest.raises(PlainDataError, match="no plain data"):
            encode(wrapped)


def test_a_replacement_is_asked_for_other_types_only():
    assert decode(encode([Liar(3), 4], replace=lambda value: int(value))) == [3, 4]


def test_handles_need_a_reader_who_wants_them():
    data = encode([Handle(7), 1])
    assert decode(data, lambda number: f"object {number}") == ["object 7", 1]
    with pytest.raises(PlainDataError):
        decode(data)


def test_unhashable_members_and_keys_are_malformed():
    for data in (b"e\1\0\0\0l\0\0\0\0", b"d\1\0\0\0l\0\0\0\0N"):
        with pytest.raises(PlainDataError, match="malformed"):
            decode(data)


def test_not_a_number_stays_one():
    assert math.isnan(decode(encode(math.nan)))
