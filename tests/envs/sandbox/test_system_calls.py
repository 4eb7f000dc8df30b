"""The filter of system calls, read by an interpreter of its language written for this test."""

import errno
import struct

import pytest

from prefix_rft_rllib.envs.sandbox.system_calls import filter_program

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OWN_ID = 4711
ALLOWED, KILLED = 0x7FFF0000, 0x80000000
REFUSED, UNKNOWN = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
THREAD_FLAGS = 0x3D0F00  # What the C library passes for a thread.
# Numbers on x86-64 and ARM64.
READ, CLONE, CLONE3, KILL, TGKILL = (0, 63), (56, 220), (435, 435), (62, 129), (234, 131)
SENDTO, SOCKETPAIR, SOCKET, PRLIMIT = (44, 206), (53, 199), (41, 198), (302, 261)
FORK, EXECVE, PTRACE, INOTIFY = (57, None), (59, 221), (101, 117), (253, None)


def outcome(machine, number, *arguments, architecture=None):
    """What the kernel does with a call."""
    values = [*arguments, *[0] * (6 - len(arguments))]
    call = struct.pack("<IIQ6Q", number, architecture or MACHINES[machine], 0, *values)
    program = list(struct.iter_unpack("<HBBI", filter_program(machine, OWN_ID)))
    at, word = 0, 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (word,) = struct.unpack_from("<I", call, value)
            continue
        holds = {0x15: word == value, 0x35: word >= value, 0x45: bool(word & value)}[code]
        at += if_true if holds else if_false


@pytest.mark.parametrize(("place", "machine"), list(enumerate(MACHINES)))
def test_threads_own_signals_and_plain_messages_are_allowed_nothing_like_them(place, machine):
    for call, arguments, expected in (
        (READ, (0,), ALLOWED),
        (CLONE, (THREAD_FLAGS,), ALLOWED),
        (CLONE, (0x11,), REFUSED),  # A new process.
        (CLONE, (0x10000000,), REFUSED),  # A user namespace.
        (CLONE3, (0,), UNKNOWN),
        (KILL, (OWN_ID, 9), ALLOWED),
        (KILL, (OWN_ID + 1, 9), REFUSED),
        (KILL, (2**64 - 1, 9), REFUSED),
        (TGKILL, (1, 1, 9), REFUSED),
        (PRLIMIT, (0,), ALLOWED),
        (PRLIMIT, (1,), REFUSED),
        (SOCKETPAIR, (1, 1), ALLOWED),
        (SOCKETPAIR, (16, 1), REFUSED),
        (SOCKET, (40, 1), REFUSED),
        (SENDTO, (3, 0, 5, 0), ALLOWED),
        (SENDTO, (3, 0, 5, 1), REFUSED),  # Out of band.
        (EXECVE, (0,), REFUSED),
        (PTRACE, (16,), REFUSED),
        (FORK, (), REFUSED),
        (INOTIFY, (), REFUSED),
    ):
        number = call[place]
        if number is not None:
            assert outcome(machine, number, *arguments) == expected, (call, arguments)


def test_other_ways_to_number_the_calls_are_closed():
    assert outcome("x86_64", 0x40000000 | READ[0]) == REFUSED
    assert outcome("x86_64", READ[0], architecture=0x40000003) == KILLED  # 32 bit.
