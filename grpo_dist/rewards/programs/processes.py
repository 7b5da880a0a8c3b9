"""The forks of the runner: made, talked to and ended. Run by `runner.py`; imports nothing but the standard library."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable

import confine


def fork(what: Callable[[], None], keep: tuple[int, ...]) -> int:
    """A child that does so much and ends; of the descriptors above 2 it keeps only these."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        confine.die_with(parent, signal.SIGKILL)
        close_all_but(keep)
        what()
        code = 0
    except BaseException as error:
        code = _told(error)
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(code)


def close_all_but(keep: tuple[int, ...]) -> None:
    start = 3
    for one in sorted(keep):
        os.closerange(start, one)
        start = one + 1
    os.closerange(start, 1024)


def _told(error: BaseException) -> int:
    """The exit code of what a program raised; its traceback goes to its standard error."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    with contextlib.suppress(BaseException):
        text = f"{type(error).__name__}: {error}"
        os.write(2, text[:500].encode(errors="replace"))
    return 1


class Talk:
    """Writes to a process and reads from it, never more than so much, whichever of both the process does first.

    `to` is -1 for a process that only writes.
    """

    def __init__(self, given: bytes, to: int, out: int, error: int, most: int) -> None:
        self.given, self.to, self.most = memoryview(given), to, most
        self.texts = {out: bytearray(), error: bytearray()}
        self.out, self.of_errors = out, error
        self.open = {out, error}
        if to >= 0:
            os.set_blocking(to, False)

    output = property(lambda self: self.texts[self.out])
    error = property(lambda self: self.texts[self.of_errors].decode(errors="replace"))

    def once(self, process: int, seconds: float) -> bool:
        """Whether the process has ended, after at most so long. OverflowError if it writes too much."""
        writes = [self.to] if self.to >= 0 else []
        readable, writable, _ = select.select([process, *self.open], writes, [], seconds)
        if writable:
            self._write()
        for one in self.open.intersection(readable):
            self._read(one)
        return process in readable

    def _write(self) -> None:
        try:
            self.given = self.given[os.write(self.to, self.given[:65536]) :] if self.given else self.given
        except BrokenPipeError:
            self.given = self.given[:0]
        if not self.given:
            os.close(self.to)
            self.to = -1

    def _read(self, descriptor: int) -> None:
        chunk = os.read(descriptor, 65536)
        text = self.texts[descriptor]
        text += chunk[: max(0, self.most - len(text))] if descriptor == self.of_errors else chunk
        if len(text) > self.most:
            raise OverflowError
        if not chunk:
            self.open.discard(descriptor)

    def rest(self) -> None:
        """What the process wrote before it ended."""
        while self.open:
            for one in list(self.open):
                self._read(one)

    def close(self) -> None:
        for descriptor in {self.out, self.of_errors} | ({self.to} if self.to >= 0 else set()):
            os.close(descriptor)


def until_ended(child: int, talk: Talk, deadline: float) -> tuple[str | None, int]:
    """(why it was ended, or None; its status)."""
    process, why = os.pidfd_open(child), None
    try:
        while not talk.once(process, max(0.0, deadline - time.monotonic())):
            if time.monotonic() >= deadline:
                why = "took too long"
                break
        else:
            talk.rest()
    except OverflowError:
        why = "wrote too much"
    finally:
        status = end(child)
        os.close(process)
        talk.close()
    return why, status


def end(child: int) -> int:
    """Its status; it is killed if it has not ended by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def ending(status: int, error: str) -> str | None:
    """Why a program failed, in words; None if it ended well."""
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL:
        return "used too much processor time"
    if code == -signal.SIGXFSZ:
        return "wrote too large a file"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name if -code in set(signal.Signals) else f'signal {-code}'}"
    return (error.strip() or f"exit code {code}") if code else None
