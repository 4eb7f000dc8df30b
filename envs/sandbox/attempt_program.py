"""Running code the way the interpreter runs a script, from its module to its exit."""

from __future__ import annotations

import atexit
import builtins
import sys
import threading
import types


class UnreadableCodeError(Exception):
    """The code does not compile."""


def module_for(name: str) -> types.ModuleType:
    """Return a new module that can be imported under its name, as code finds itself in a script."""
    module = types.ModuleType(name)
    file = "program.py" if name == "__main__" else f"{name}.py"
    module.__dict__.update(__file__=file, __builtins__=builtins)
    sys.modules[name] = module
    sys.argv = [file]
    return module


def compiled(code: str, file: str) -> types.CodeType:
    """Compile code.

    Raises:
        UnreadableCodeError: If it does not compile; says why.
    """
    try:
        return compile(code, file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnreadableCodeError(f"{type(error).__name__}: {error}"[:500]) from error


def run_program(code: types.CodeType) -> int:
    """Run code as a script that reads standard input; return its exit code."""
    module = module_for("__main__")
    exit_code = 0
    try:
        exec(code, module.__dict__)
    except SystemExit as error:
        exit_code = _exit_code(error)
    except BaseException:
        import traceback

        traceback.print_exc()
        exit_code = 1
    finally:
        _end_like_the_interpreter()
    return exit_code


def _exit_code(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return int(error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _end_like_the_interpreter() -> None:
    """Wait for threads, end executors, call exit handlers: some programs print only there."""
    vars(threading)["_shutdown"]()
    atexit._run_exitfuncs()
    flush_output()


def flush_output() -> None:
    """Write out what is printed; also to the first streams where a program put others in place."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
