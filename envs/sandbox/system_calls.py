"""A list of kernel calls that an attempt is refused, checked by the kernel itself (seccomp).

It holds with and without namespaces, for root's workers and for anybody's. Refused calls fail as
for missing rights (`PermissionError`); Python programs that compute something never need them.
Threads can be started, processes cannot.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from prefix_rft_rllib.envs.sandbox import linux

_PR_SET_SECCOMP = 22
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_FILTER, _ALL_THREADS = 1, 1
_SECCOMP_MODE_FILTER = 2
_CLONE_THREAD = 0x00010000

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_REFUSE = 0x00050000 | errno.EPERM
_UNKNOWN = 0x00050000 | errno.ENOSYS

# Berkeley Packet Filter: load a word, jump if equal, jump if any bit is set, return.
_LOAD, _JUMP_EQUAL, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x45, 0x06
_JUMP_AT_LEAST = 0x35
_AT_NUMBER, _AT_MACHINE, _AT_FIRST_ARGUMENT, _AT_FOURTH_ARGUMENT = 0, 4, 16, 40

_MACHINES = {
    "x86_64": 0xC000003E,
    "aarch64": 0xC00000B7,
}
_X32_BIT = 0x40000000

# Numbers in the order of _MACHINES; -1 where a machine has no such call.
_REFUSED: dict[str, tuple[int, int]] = {
    # other processes
    "fork": (57, -1),
    "vfork": (58, -1),
    "execve": (59, 221),
    "execveat": (322, 281),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "setpriority": (141, 140),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "process_madvise": (440, 440),
    # sockets, pipes between strangers
    "socket": (41, 198),
    "bind": (49, 200),
    "connect": (42, 203),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "sendmmsg": (307, 269),
    "recvmmsg": (299, 243),
    # memory that no limit counts, or that outlives its maker
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # namespaces, mounts, users
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setgroups": (116, 159),
    "capset": (126, 91),
    "personality": (135, 92),
    # rarely needed, often the way into the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_setup": (206, 0),
    "io_submit": (209, 2),
    "inotify_init": (253, -1),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "modify_ldt": (154, -1),
}
_CLONE = (56, 220)
_CLONE3 = (435, 435)
_KILL_CALL, _TGKILL = (62, 129), (234, 131)
_PRLIMIT = (302, 261)
_SOCKETPAIR = (53, 199)
_SENDTO, _RECVFROM = (44, 206), (45, 207)
_AF_UNIX = 1


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _only_for(number: int, argument: int, place: int = _AT_FIRST_ARGUMENT) -> list[bytes]:
    """Allow a call with one value of one argument, refuse it with any other."""
    return [
        _instruction(_JUMP_EQUAL, number, 0, 4),
        _instruction(_LOAD, place),
        _instruction(_JUMP_EQUAL, argument, 1, 0),
        _instruction(_RETURN, _REFUSE),
        _instruction(_RETURN, _ALLOW),
    ]


def filter_program(machine: str, process_id: int) -> bytes:
    """Return the filter for a machine, as the kernel reads it.

    Args:
        machine: As of `platform.machine`.
        process_id: The one process that may be sent signals.

    Raises:
        OSError: If its call numbers are not known here.
    """
    if machine not in _MACHINES:
        raise OSError(f"no list of system calls for {machine}")
    column = list(_MACHINES).index(machine)
    program = [
        _instruction(_LOAD, _AT_MACHINE),
        _instruction(_JUMP_EQUAL, _MACHINES[machine], 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _AT_NUMBER),
    ]
    if machine == "x86_64":  # A second way to call everything, by other numbers.
        program += [
            _instruction(_JUMP_AT_LEAST, _X32_BIT, 0, 1),
            _instruction(_RETURN, _REFUSE),
        ]
    for numbers in _REFUSED.values():
        number = numbers[column]
        if number >= 0:
            program += [_instruction(_JUMP_EQUAL, number, 0, 1), _instruction(_RETURN, _REFUSE)]
    program += _only_for(_KILL_CALL[column], process_id) + _only_for(_TGKILL[column], process_id)
    program += _only_for(_PRLIMIT[column], 0)  # Its own limits, which can only be lowered.
    program += _only_for(_SOCKETPAIR[column], _AF_UNIX)  # To itself: event loops have one.
    for call in (_SENDTO, _RECVFROM):  # No flags: they lead to rarely tried parts of the kernel.
        program += _only_for(call[column], 0, _AT_FOURTH_ARGUMENT)
    # The C library falls back to clone where clone3, whose flags are out of sight, is unknown.
    program += [_instruction(_JUMP_EQUAL, _CLONE3[column], 0, 1), _instruction(_RETURN, _UNKNOWN)]
    program += [
        _instruction(_JUMP_EQUAL, _CLONE[column], 0, 3),
        _instruction(_LOAD, _AT_FIRST_ARGUMENT),
        _instruction(_JUMP_BITS, _CLONE_THREAD, 1, 0),
        _instruction(_RETURN, _REFUSE),
        _instruction(_RETURN, _ALLOW),
    ]
    return b"".join(program)


def filter_system_calls() -> None:
    """Refuse this process and its threads the listed calls for good.

    `give_up_privileges` must have been called before.

    Raises:
        OSError: If the kernel cannot filter.
    """
    program = filter_program(platform.machine(), os.getpid())
    buffer = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))

    whole = Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    # A package that was imported may have started threads: they belong to the attempt too.
    number = _SECCOMP[platform.machine()]
    linux.call_number(number, _SET_FILTER, _ALL_THREADS, ctypes.byref(whole))


def can_filter() -> bool:
    """Return whether this machine's calls are known here and its kernel filters."""
    if not linux.IS_LINUX or platform.machine() not in _MACHINES:
        return False
    try:
        # A null filter: "bad address" from a kernel that would have read it.
        linux.call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, None, 0, 0)
    except OSError as error:
        return error.errno == errno.EFAULT
    return False
