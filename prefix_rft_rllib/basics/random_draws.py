"""Counter-based random draws: a draw is a pure function of its key.

There is no generator state to save or to share, so a restored run and any number of env runners
or learners see the same draws.
"""

from __future__ import annotations

import hashlib
import operator

NUM_MANTISSA_BITS = 53


def stable_hash(*parts: int | str) -> int:
    """Hash a key to a non-negative 63-bit number, the same on every machine and Python.

    63 bits, so that the value is a valid seed for any generator and fits an int64 tensor.

    Args:
        *parts: Integers and strings. `("1", 2)`, `(1, "2")` and `("12",)` are different keys.

    Returns:
        An integer in [0, 2**63).
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, str):
            kind, payload = b"s", part.encode()
        else:
            kind, payload = b"i", str(operator.index(part)).encode()
        digest.update(b"%s%d:%s" % (kind, len(payload), payload))
    return int.from_bytes(digest.digest(), "big") >> 1


def uniform(*key: int | str) -> float:
    """A uniform draw that depends on its key only.

    Args:
        *key: Integers and strings, see `stable_hash`.

    Returns:
        A multiple of 2**-53 in [0, 1).
    """
    return (stable_hash(*key) >> (63 - NUM_MANTISSA_BITS)) * 2.0**-NUM_MANTISSA_BITS
