"""What the tests hold in place of the attempt's objects.

Names that tests take from an attempt, and whatever it returns that is no plain data, are
`RemoteValue`s: they can be called, have attributes, be passed back, and be gone through once as a
generator can, nothing else. Any other use ends the tests: a remote value equals nothing, differs
from nothing, and is neither true nor false.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any
from weakref import WeakValueDictionary

from prefix_rft_rllib.envs.sandbox.channel import Channel, ChannelClosedError
from prefix_rft_rllib.envs.sandbox.plain_data import Handle, PlainDataError, value_as

_END = object()
_PLAIN_BASES: tuple[type[Any], ...] = (int, float, str, list, tuple, set, frozenset, dict)


class AttemptFailed(BaseException):
    """The attempt is wrong, whatever the tests make of it. No `except Exception` catches it.

    Attributes:
        kind: "wrong"; "gone" if the attempt's process ended; "unreadable" if its code cannot
            be compiled.
        reason: Why, in words.
    """

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class TestsBroken(BaseException):
    """The tests themselves cannot be run."""


class Attempt:
    """The judge's side of the connection: asks, and reads the answers with suspicion.

    Attributes:
        failure: The first `AttemptFailed`; once set, the verdict cannot be a pass.
        last_result: What the latest call returned, as a tuple of one; empty if it did not return.
        num_calls: How many calls were made.

    Args:
        channel: The connection to the attempt's process.
        max_bytes: What the items of one object may take.
    """

    def __init__(self, channel: Channel, max_bytes: int):
        self._channel = channel
        self._max_bytes = max_bytes
        self._values: WeakValueDictionary[int, RemoteValue] = WeakValueDictionary()
        self._gone_through: set[int] = set()
        self.failure: AttemptFailed | None = None
        self.last_result: tuple[Any, ...] = ()
        self.num_calls = 0

    def load(self, code: str, header: str) -> None:
        """Have the attempt run its code, after a header that every attempt gets.

        Raises:
            AttemptFailed: If it cannot be compiled, or does not run to its end.
        """
        try:
            self._ask("load", code, header)
        except AttemptFailed:
            raise
        except Exception as error:
            raise self.fail("wrong", f"the code raised {describe(error)}") from None

    def name(self, name: str) -> Any:
        """Return a global of the attempt's code.

        Raises:
            NameError: If there is none.
        """
        return self._ask("name", name)

    def get(self, handle: Handle, name: str) -> Any:
        """Return an attribute of a remote object."""
        return self._ask("get", handle, name)

    def set(self, handle: Handle, name: str, value: Any) -> None:
        """Set an attribute of a remote object."""
        self._ask("set", handle, name, value)

    def call(self, handle: Handle, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a remote object; lists, dicts, sets and bytearrays it changes are changed here."""
        self.num_calls += 1
        self.last_result = ()
        result = self._ask("call", handle, args, kwargs)
        self.last_result = (result,)
        return result

    def items(self, handle: Handle) -> Iterator[Any]:
        """Yield what is in a remote object, once: a second time it might say something else."""
        if handle.number in self._gone_through:
            raise self.fail("wrong", "the result is no plain data: it can be gone through once")
        self._gone_through.add(handle.number)
        step = self._ask("iter", handle)
        first_byte = self._channel.num_received
        while (answer := self._ask("next", step)) is not _END:
            if self._channel.num_received - first_byte > self._max_bytes:
                raise self.fail("wrong", "the result is not accepted: its items are too large")
            yield answer

    def fail(self, kind: str, reason: str) -> AttemptFailed:
        """Note a failure that the tests cannot take back; return it to be raised."""
        failure = AttemptFailed(kind, reason)
        if self.failure is None:
            self.failure = failure
        return failure

    def _ask(self, *request: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        try:
            self._channel.send(request, self._sendable)
        except PlainDataError as error:
            raise TestsBroken(f"a call in the tests cannot be made: {error}") from None
        except ChannelClosedError:
            raise self.fail("gone", "the attempt's process ended before its tests did") from None
        try:
            answer = self._channel.receive(self._value)
        except ChannelClosedError:
            raise self.fail("gone", "the attempt's process ended before its tests did") from None
        except PlainDataError as error:
            raise self.fail("wrong", f"the attempt's answer is unreadable: {error}") from None
        return self._read_answer(answer, request)

    def _value(self, number: int) -> RemoteValue:
        """Return what stands for an object: the same for the same object, so that `is` holds."""
        return self._values.setdefault(number, RemoteValue(self, Handle(number)))

    def _sendable(self, value: Any) -> Any:
        """Return what is sent for an argument that is not of a plain type itself."""
        if type(value) is RemoteValue:
            return object.__getattribute__(value, "_RemoteValue__handle")
        name = getattr(value, "__name__", "")
        if isinstance(value, type) and getattr(builtins, name, None) is value:
            return self._sendable(self._ask("builtin", name))
        base_value = value_as(_PLAIN_BASES, value)
        if base_value is not None:
            return base_value
        raise PlainDataError(f"an argument of type {type(value).__name__} is no plain data")

    def _read_answer(self, answer: Any, request: tuple[Any, ...]) -> Any:
        """Return or raise what an answer says; anything but the agreed forms is a failure."""
        if type(answer) is tuple and all(type(word) is str for word in answer):
            match answer:
                case ("end",) if request[0] == "next":
                    return _END
                case ("missing", name):
                    raise NameError(f"name {name!r} is not defined by the attempt")
                case ("raised", kind, message, name):
                    raise _exception(self, kind, message, name)
                case ("unreadable", message):
                    raise self.fail("unreadable", message[:500])
                case ("unplain", message):
                    raise self.fail("wrong", f"the result is not accepted: {message[:200]}")
        if type(answer) is tuple and len(answer) == 3 and type(answer[0]) is str:
            word, value, changed = answer
            if word == "value" and type(changed) is dict:
                if changed:
                    self._change_arguments(request, changed)
                return value
        raise self.fail("wrong", "the attempt's answer has an unknown form")

    def _change_arguments(self, request: tuple[Any, ...], changed: dict[Any, Any]) -> None:
        if request[0] != "call":
            raise self.fail("wrong", "the attempt's answer has an unknown form")
        args = {**dict(enumerate(request[2])), **request[3]}
        for key, new in changed.items():
            old: Any = args.get(key) if type(key) in (int, str) else None
            if type(old) is not type(new):
                raise self.fail("wrong", "the attempt changed the type of an argument")
            if type(old) is list or type(old) is bytearray:
                old[:] = new
            elif type(old) is dict or type(old) is set:
                old.clear()
                old.update(new)
            else:
                raise self.fail("wrong", "the attempt changed an argument that cannot change")


def _exception(attempt: Attempt, kind: str, message: str, name: str) -> BaseException:
    """Return the exception to raise in the tests for one that the attempt reported."""
    builtin = getattr(builtins, kind, None)
    text = message[:300] if name == kind else f"{name}: {message}"[:400]
    if not (isinstance(builtin, type) and issubclass(builtin, BaseException)):
        return attempt.fail("wrong", "the attempt's answer has an unknown form")
    if not issubclass(builtin, Exception):
        return attempt.fail("wrong", f"the attempt raised {kind}: {message[:300]}")
    if issubclass(builtin, StopIteration | StopAsyncIteration):
        # It would end a `map` of the tests as if there were no more of them.
        return RuntimeError(f"the attempt raised {kind}: {message[:300]}")
    try:
        return builtin(text)
    except TypeError:  # UnicodeDecodeError and its like want more arguments.
        return ValueError(text)


def describe(error: BaseException) -> str:
    """Return an exception as one short line."""
    return f"{type(error).__name__}: {error}"[:300].removesuffix(": ")


class RemoteValue:
    """An object of the attempt; see the module's docstring."""

    __slots__ = ("__attempt", "__handle", "__weakref__")

    def __init__(self, attempt: Attempt, handle: Handle):
        object.__setattr__(self, "_RemoteValue__attempt", attempt)
        object.__setattr__(self, "_RemoteValue__handle", handle)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        return self.__attempt.call(self.__handle, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name != "__name__":
            raise AttributeError(name)
        return self.__attempt.get(self.__handle, name)

    def __iter__(self) -> Iterator[Any]:
        return self.__attempt.items(self.__handle)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__attempt.set(self.__handle, name, value)


def _refuse(operation: str) -> Any:
    def refused(self: RemoteValue, *_: Any) -> Any:
        attempt: Attempt = object.__getattribute__(self, "_RemoteValue__attempt")
        raise attempt.fail(
            "wrong", f"the result is no plain data, so that {operation} cannot be used on it"
        )

    return refused


for _name in (
    *("eq", "ne", "lt", "le", "gt", "ge", "bool", "next", "contains", "getitem"),
    *("setitem", "delitem", "hash", "int", "float", "complex", "index", "str", "repr", "format"),
    *("bytes", "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv"),
    *("rfloordiv", "mod", "rmod", "pow", "rpow", "and", "rand", "or", "ror", "xor", "rxor"),
    *("lshift", "rlshift", "rshift", "rrshift", "neg", "pos", "abs", "invert", "round", "trunc"),
    *("reversed", "enter", "exit", "divmod", "rdivmod", "matmul", "rmatmul", "reduce_ex"),
    *("await", "aiter", "anext", "floor", "ceil", "copy", "deepcopy"),
):
    setattr(RemoteValue, f"__{_name}__", _refuse(f"__{_name}__"))
