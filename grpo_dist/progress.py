"""Progress messages from the processes of a run to the user's terminal.

The processes of a run print a great deal, and all of it goes to the log. What the user is to see, the reason of a
failure and the exit code go over a socket of their own, so that nothing a reward prints is taken for one of them. The
log has these messages too, with a mark in front.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import struct
import sys
from collections.abc import Iterator
from typing import TextIO

from grpo_dist.masking import hidden
from grpo_dist.text import beneath, printable

MARK = "grpo-dist: "
PASSING_MARK = "grpo-dist~ "
ERROR_MARK = "grpo-dist! "
EXIT_MARK = "grpo-dist= "
"""Precedes the exit code with which a process is about to end: launchers turn every failure into exit code 1."""
CONTROL_VARIABLE = "GRPO_DIST_CONTROL"
"""Name of the socket that messages go to."""
LONGEST_MESSAGE = 32_000
"""Characters."""
SEND_SECONDS = 5.0
"""For a parent that is busy; a message it does not take is lost to the terminal, not to the log."""


def say(text: str) -> None:
    """Show a message to the user; called in a process of the run, on its main rank."""
    _print(MARK, text)


def say_passing(text: str) -> None:
    """Show progress; on a terminal the next such line replaces this one."""
    _print(PASSING_MARK, text)


def say_error(text: str, code: int | None = None) -> None:
    """Announce why this process is about to fail, and its exit code if that matters to the parent."""
    _print(ERROR_MARK, text)
    if code is not None:
        _print(EXIT_MARK, str(code))


def _print(mark: str, text: str) -> None:
    for line in hidden(text).splitlines():
        print(f"{mark}{line}", flush=True)
        _send(mark, line)


def _send(mark: str, line: str) -> None:
    name = os.environ.get(CONTROL_VARIABLE)
    if not name:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(SEND_SECONDS)
        sender.sendto(json.dumps([mark, line[:LONGEST_MESSAGE]]).encode(), f"\0{name}")


class Control:
    """The parent's end. The socket has no file, so nothing is left of it; it hears this user's processes alone."""

    def __init__(self) -> None:
        self.name = f"grpo-dist-{secrets.token_hex(16)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.setblocking(False)
        self._socket.bind(f"\0{self.name}")

    def fileno(self) -> int:
        return self._socket.fileno()

    def messages(self) -> Iterator[tuple[str, str]]:
        """The (mark, line) of every message that has arrived."""
        with contextlib.suppress(BlockingIOError):
            while True:
                message, sender, *_ = self._socket.recvmsg(8 * LONGEST_MESSAGE, socket.CMSG_SPACE(CREDENTIALS.size))
                if [CREDENTIALS.unpack(data)[1] for _, _, data in sender] != [os.getuid()]:
                    continue
                with contextlib.suppress(ValueError):
                    mark, line = json.loads(message)
                    yield mark, line

    def close(self) -> None:
        self._socket.close()


CREDENTIALS = struct.Struct("iII")
"""unix(7): process, user and group of a sender, as the kernel states them."""


class Terminal:
    """Shows messages. On a terminal a passing line is replaced by the next one, elsewhere each gets its own line."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self.stream = beneath(stream)
        self.live = stream.isatty()
        self.unfinished = False

    def show(self, text: str) -> None:
        self.finish()
        self.stream.write(f"{printable(text)}\n")
        self.stream.flush()

    def show_passing(self, text: str) -> None:
        if not self.live:
            return self.show(text)
        width = shutil.get_terminal_size().columns
        self.stream.write(f"\r\x1b[K{printable(text)[: width - 1]}")
        self.stream.flush()
        self.unfinished = True

    def finish(self) -> None:
        """Keep the last passing line."""
        if self.unfinished:
            self.stream.write("\n")
            self.stream.flush()
        self.unfinished = False
