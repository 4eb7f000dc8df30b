"""Which files an attempt may touch where it has no namespaces, kept by the kernel (Landlock).

Any process may restrict itself, with no right of its own; Linux offers it since version 5.13.
Restricted are reading, listing, writing and making files, from Linux 6.7 on also TCP connections,
from 6.12 on signals and abstract sockets. That a file exists can still be seen.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Sequence

from prefix_rft_rllib.envs.sandbox import linux

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # On every machine.
_ASK_VERSION = 1
_RULE_PATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIRECTORY = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_NUM_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""Rights to files that each version knows; later ones know 16."""
_READ = _EXECUTE | _READ_FILE | _READ_DIRECTORY
_TCP, _SIGNALS_AND_SOCKETS = 0b11, 0b11
_SIZES = ((4, 8), (6, 16))
"""Bytes of the ruleset before a version; later 24."""


def version() -> int:
    """Return the version of Landlock that the kernel offers, 0 for none."""
    if not linux.IS_LINUX:
        return 0
    try:
        return linux.call_number(_CREATE_RULESET, None, 0, _ASK_VERSION)
    except OSError:
        return 0


def make_rules(readable: Sequence[str], devices: Sequence[str], directory: str) -> int:
    """Write down what is allowed, while all of it can be opened.

    Args:
        readable: What may be read; missing ones are left out.
        devices: What may be read and written.
        directory: Where everything is allowed.

    Returns:
        A descriptor for `restrict`.

    Raises:
        OSError: If the kernel refuses.
    """
    offered = version()
    rights = (1 << _NUM_RIGHTS.get(offered, 16)) - 1
    size = next((size for below, size in _SIZES if offered < below), 24)
    ruleset = struct.pack("=QQQ", rights, _TCP, _SIGNALS_AND_SOCKETS)[:size]
    rules = linux.call_number(_CREATE_RULESET, ctypes.create_string_buffer(ruleset, size), size, 0)
    _allow(rules, directory, rights)
    for path in devices:
        _allow(rules, path, _READ_FILE | _WRITE_FILE)
    for path in readable:
        with contextlib.suppress(FileNotFoundError):
            _allow(rules, path, _READ)
    return rules


def restrict(rules: int) -> None:
    """Restrict this process for good; it must have given up gaining privileges.

    Raises:
        OSError: If the kernel refuses.
    """
    linux.call_number(_RESTRICT_SELF, rules, 0)
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    number = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, number)
        linux.call_number(_ADD_RULE, rules, _RULE_PATH, ctypes.create_string_buffer(rule, 12), 0)
    finally:
        os.close(number)
