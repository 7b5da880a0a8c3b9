"""Values between the process of a program and the process of its tests: plain data, and handles on anything else.

Tests that shared the program's process could be answered with an object that equals everything, be read by the program,
or be rewritten by it. So they run in another process and see of the program what is sent: numbers, text and containers
as data, and for any other object a handle, which is called, read and iterated over there and equals nothing but itself.

Both processes use this module: it imports nothing but the standard library.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import fractions
import json
import math
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

LONGEST = 256 << 20
"""Bytes of one message."""
DEEPEST = 100
PLAIN = (list, tuple, set, frozenset)
COLLECTIONS = {"Counter": collections.Counter, "OrderedDict": collections.OrderedDict, "deque": collections.deque}
NUMBERS = {"Decimal": decimal.Decimal, "Fraction": fractions.Fraction}
DATES = {"date": datetime.date, "datetime": datetime.datetime, "time": datetime.time}


def read_exactly(descriptor: int, count: int) -> bytes:
    """EOFError where it ends before."""
    data = bytearray()
    while len(data) < count:
        chunk = os.read(descriptor, min(count - len(data), 1 << 20))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)


def receive(descriptor: int) -> Any:
    """The next message; EOFError at the end, ValueError for what is none."""
    (length,) = struct.unpack(">I", read_exactly(descriptor, 4))
    if length > LONGEST:
        raise ValueError(f"a message of {length:,} bytes")
    try:
        return json.loads(read_exactly(descriptor, length))
    except RecursionError:
        raise ValueError("a message that is too deep") from None


def send(descriptor: int, message: Any) -> None:
    """ValueError if it is too long or too deep."""
    try:
        data = json.dumps(message).encode("ascii")
    except RecursionError:
        raise ValueError("a message that is too deep") from None
    if len(data) > LONGEST:
        raise ValueError(f"a message of {len(data):,} bytes")
    view = memoryview(struct.pack(">I", len(data)) + data)
    while view:
        view = view[os.write(descriptor, view) :]


class Peer:
    """One end of the connection. Requests may be nested: who waits for a reply answers requests meanwhile.

    Args:
        serve: answers a request of the other side; what it raises is raised there.
        show: what stands here for a handle of the other side.
    """

    def __init__(
        self, reads: int, writes: int, serve: Callable[..., Any], show: Callable[[Peer, int, str], Any]
    ) -> None:
        self.reads, self.writes = reads, writes
        self.serve, self.show = serve, show
        self.mine: dict[int, Any] = {}
        self.theirs: dict[int, Any] = {}
        """Handles, so that the same object over there is the same here."""

    def ask(self, what: str, *arguments: Any) -> Any:
        send(self.writes, {"ask": what, "with": self.packed(list(arguments))})
        while True:
            message = receive(self.reads)
            if "ask" in message:
                self._answer(message)
            elif "error" in message:
                raise self._error(message)
            else:
                return self.unpacked(message["value"])

    def answer_all(self) -> None:
        """Until the other side closes the connection."""
        while True:
            try:
                message = receive(self.reads)
            except EOFError:
                return
            self._answer(message)

    def _answer(self, message: dict[str, Any]) -> None:
        try:
            value = self.serve(self, message["ask"], *self.unpacked(message["with"]))
            send(self.writes, {"value": self.packed(value)})
        except (EOFError, BrokenPipeError):
            raise
        except BaseException as error:
            names = [kind.__name__ for kind in type(error).__mro__]
            send(self.writes, {"error": names, "text": _text(error)})

    def _error(self, message: dict[str, Any]) -> BaseException:
        return error_class(message["error"])(str(message.get("text")))

    def packed(self, value: Any, depth: int = 0) -> Any:
        """As JSON: a number, text, or [kind, …]."""
        kind = type(value)
        if value is None or kind in (bool, str):
            return value
        if kind is int:
            return ["int", hex(value)]  # Python reads no decimal of over 4,300 digits
        if depth > DEEPEST:
            raise ValueError(f"a value of more than {DEEPEST} levels")
        if kind in (float, complex):
            return [kind.__name__, repr(value)]
        if kind in (bytes, bytearray):
            return [kind.__name__, value.hex()]
        if kind is range:
            return ["range", [hex(one) for one in (value.start, value.stop, value.step)]]
        if kind in DATES.values():
            return [kind.__name__, value.isoformat()]
        if kind in NUMBERS.values():
            return [kind.__name__, str(value)]
        if kind in PLAIN:
            return [kind.__name__, [self.packed(one, depth + 1) for one in value]]
        if kind in (dict, collections.defaultdict):
            return ["dict", [[self.packed(key, depth + 1), self.packed(one, depth + 1)] for key, one in value.items()]]
        if kind in COLLECTIONS.values():
            inner = list(value) if kind is collections.deque else dict(value)
            return [kind.__name__, self.packed(inner, depth + 1)]
        if isinstance(value, Remote):
            return ["yours", value._number_]
        self.mine[id(value)] = value  # kept, so that no other object gets the number
        return ["handle", id(value), kind.__name__]

    def unpacked(self, message: Any) -> Any:
        if not isinstance(message, list):
            return message
        kind, value = message[0], message[1]
        if kind == "int":
            return int(value, 16)
        if kind in ("float", "complex"):
            return getattr(builtins, kind)(value)
        if kind in ("bytes", "bytearray"):
            return getattr(builtins, kind).fromhex(value)
        if kind == "range":
            return range(*(int(one, 16) for one in value))
        if kind in DATES:
            return DATES[kind].fromisoformat(value)
        if kind in NUMBERS:
            return NUMBERS[kind](value)
        if kind == "dict":
            return {self.unpacked(key): self.unpacked(one) for key, one in value}
        if kind in COLLECTIONS:
            return COLLECTIONS[kind](self.unpacked(value))
        if kind == "yours":
            return self.mine[value]
        if kind == "handle":
            if value not in self.theirs:
                self.theirs[value] = self.show(self, value, str(message[2]))
            return self.theirs[value]
        return {one.__name__: one for one in PLAIN}[kind](self.unpacked(one) for one in value)


ERRORS: dict[str, type[BaseException]] = {}
"""Classes that stand for those of the program, by name, so that a test can catch them."""


def error_class(names: list[Any]) -> type[BaseException]:
    """What stands for an exception of these classes, nearest first: the same class, or the nearest that Python has
    itself; never one that ends a process."""
    names = [name for name in names if isinstance(name, str)]
    kind = next((kind for kind in (getattr(builtins, name, None) for name in names) if _is_error(kind)), Exception)
    if names and names[0] != kind.__name__ and names[0].isidentifier():
        return ERRORS.setdefault(names[0], type(names[0], (kind,), {}))
    return kind


def _is_error(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)


def _text(error: BaseException) -> str:
    try:
        return str(error)[:2000]
    except BaseException:
        return ""


class Remote:
    """A handle on an object of the other process. It equals itself only, whatever that object says."""

    __slots__ = ("_name_", "_number_", "_peer_")

    def __init__(self, peer: Peer, number: int, name: str) -> None:
        object.__setattr__(self, "_peer_", peer)
        object.__setattr__(self, "_number_", number)
        object.__setattr__(self, "_name_", name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._peer_.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer_.ask("set", self, name, value)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._peer_.ask("call", self, list(arguments), named)

    def __iter__(self) -> Iterator[Any]:
        iterator = self._peer_.ask("iterate", self)
        while one := self._peer_.ask("next", iterator):
            yield one[0]

    def __next__(self) -> Any:
        if one := self._peer_.ask("next", self):
            return one[0]
        raise StopIteration

    def __len__(self) -> int:
        return self._plain("len", int)

    def __bool__(self) -> bool:
        return self._plain("bool", bool)

    def __str__(self) -> str:
        return self._plain("str", str)

    def __repr__(self) -> str:
        return self._plain("repr", str)

    def __int__(self) -> int:
        return self._plain("int", int)

    def __float__(self) -> float:
        return self._plain("float", float)

    def __getitem__(self, key: Any) -> Any:
        return self._peer_.ask("item", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._peer_.ask("put", self, key, value)

    def __contains__(self, one: Any) -> bool:
        return any(other == one for other in self)

    def _plain(self, name: str, kind: type) -> Any:
        value = self._peer_.ask("builtin", self, name)
        if type(value) is not kind:
            raise TypeError(f"{name}() of a {self._name_} is no {kind.__name__}")
        return value


def alike(one: Any, other: Any) -> bool:
    """Equal as JSON would have them: a tuple is a list, and keys may have become text."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        mine, texts = ({str(key): value for key, value in each.items()} for each in (one, other))
        same = len(one) == len(other) == len(mine) and mine.keys() == texts.keys()
        return same and all(alike(mine[key], texts[key]) for key in mine)
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) or isinstance(other, float):
        return isinstance(one, int | float) and isinstance(other, int | float) and _near(one, other)
    return type(one) is type(other) and one == other


def _near(one: float, other: float) -> bool:
    try:
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6)
    except OverflowError:  # a whole number that no float holds
        return False
