"""The worker: runs one attempt from its job to its verdict, then is replaced.

It is forked from a process that has imported this module and has seen nothing else. It makes the
attempt's surroundings before it reads the job, so that neither the attempt nor the keeper holds
anything of the tests in its memory.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from prefix_rft_rllib.envs.sandbox import landlock, linux
from prefix_rft_rllib.envs.sandbox.attempt_setting import AttemptSetting
from prefix_rft_rllib.envs.sandbox.isolation import (
    DIRECTORY,
    choose_level,
    installed_packages,
    library_paths,
)
from prefix_rft_rllib.envs.sandbox.judge_main import run_judge
from prefix_rft_rllib.envs.sandbox.keeper import Keeper, end_all
from prefix_rft_rllib.envs.sandbox.limits import SandboxLimits
from prefix_rft_rllib.envs.sandbox.removal import discard
from prefix_rft_rllib.envs.sandbox.supervision import Supervision
from prefix_rft_rllib.envs.sandbox.system_calls import can_filter
from prefix_rft_rllib.envs.sandbox.user_ids import UserIds

Job = Mapping[str, Any]

# What programs for small problems import; loaded once, so that an attempt's import costs nothing
# and works even where its user cannot read the interpreter's files.
_PRELOADED = """
abc array ast base64 bisect calendar cmath collections collections.abc concurrent.futures.thread
contextlib copy csv dataclasses datetime decimal difflib encodings.idna encodings.latin_1 enum
fractions functools glob graphlib hashlib heapq inspect io itertools json keyword logging math mmap
numbers operator os.path pathlib pickle platform pprint queue random re secrets statistics string
struct subprocess sys tempfile textwrap threading time timeit traceback types typing unicodedata
unittest uuid warnings weakref zlib
"""

_level = "none"
_can_filter = False


def warm_up(settings: Mapping[str, Any]) -> None:
    """Prepare the process that workers are forked from.

    Args:
        settings: Plain data: the fields of `SandboxLimits`, and `isolation`, `packages`,
            `first_user_id`, `filter_system_calls`, `usual_imports`.

    Raises:
        RuntimeError: If the isolation asked for is not offered.
    """
    global _level, _can_filter
    _level = choose_level(settings["isolation"])
    _can_filter = settings["filter_system_calls"] and can_filter()
    library_paths(), installed_packages()  # Workers inherit what these find.
    for name in _PRELOADED.split():
        importlib.import_module(name)


def start_worker(settings: Mapping[str, Any]) -> Callable[[Job], dict[str, Any]]:
    """Make everything ready for one attempt, in a freshly forked worker.

    Args:
        settings: As in `warm_up`.

    Returns:
        Runs one job, once.
    """
    try:
        return _Worker(settings).run
    except OSError as error:
        reason = f"the sandbox cannot be set up: {error}"
        return lambda job: {"verdict": "ERROR", "reason": reason, "isolation": _level}


class _Worker:
    def __init__(self, settings: Mapping[str, Any]):
        limits = SandboxLimits.from_settings(settings)
        users = None
        if os.getuid() == 0 and linux.IS_LINUX:
            users = UserIds.claim(settings["first_user_id"])
            if _level == "none":  # A worker that was itself killed may have left something.
                users.end_processes()
                users.remove_traces()
        self._setting = AttemptSetting(
            level=_level,
            limits=limits,
            users=users,
            directory=_new_name() if _level == "none" else DIRECTORY,
            packages=settings["packages"],
            filter_system_calls=_can_filter,
            restricts_files=_level == "none" and landlock.version() > 0,
            usual_imports=settings["usual_imports"],
        )
        # The judge first: processes made after the keeper's namespaces would live in them.
        self._judge_control, theirs = socket.socketpair()
        self._judge_id = os.fork()
        if self._judge_id == 0:
            run_judge(theirs, self._setting)
        theirs.close()
        try:
            self._keeper = Keeper(self._setting)
        except OSError:
            self._end_judge()
            raise

    def run(self, job: Job) -> dict[str, Any]:
        """Run one job and clean up; the answer leaves when nothing of the attempt is left."""
        supervision = Supervision(self._keeper, self._judge_control, self._setting.limits)
        try:
            self._make_directory()
            answer = supervision.run(job)
        except Exception as error:
            reason = f"the sandbox failed: {type(error).__name__}: {error}"[:300]
            answer = {"verdict": "ERROR", "reason": reason}
        answer["isolation"] = self._setting.level
        answer["filters_system_calls"] = self._setting.filter_system_calls
        is_isolated = self._setting.level == "namespaces"
        answer["restricts_files"] = is_isolated or self._setting.restricts_files
        if not self._clean_up():
            answer = {**answer, "verdict": "ERROR", "reason": "processes of the attempt remained"}
        return answer

    def _clean_up(self) -> bool:
        self._end_judge()
        is_clean = self._keeper.end()
        if self._setting.level == "none":
            is_clean = end_all(self._setting.users) and is_clean
            discard([self._setting.directory])
            if self._setting.users is not None:
                self._setting.users.remove_traces()
        return is_clean

    def _end_judge(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._judge_id, signal.SIGKILL)
        os.waitpid(self._judge_id, 0)
        self._judge_control.close()

    def _make_directory(self) -> None:
        setting = self._setting
        if setting.level == "none":
            os.mkdir(setting.directory, 0o700)
            if setting.users is not None:
                os.chown(setting.directory, setting.users.attempt, setting.users.attempt)


def _new_name() -> str:
    return os.path.join(tempfile.gettempdir(), f"prefix_rft_attempt_{secrets.token_hex(8)}")
