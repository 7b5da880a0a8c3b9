"""Words from a process of the run to the person at the terminal.

The processes of a run print a great deal. What a person should see starts with one of these marks; everything goes
to the log.
"""

from __future__ import annotations

import shutil
import sys
from typing import TextIO

MARK = "grpo-dist: "
PASSING_MARK = "grpo-dist~ "
ERROR_MARK = "grpo-dist! "
EXIT_MARK = "grpo-dist= "
"""Before the exit code a process is about to end with: the launchers above it make 1 of any."""


def say(text: str) -> None:
    """Tell the person at the terminal; called inside a process of the run, on its main rank."""
    _print(MARK, text)


def say_passing(text: str) -> None:
    """Tell how far it is; on a terminal the next such line replaces this one."""
    _print(PASSING_MARK, text)


def say_error(text: str, code: int | None = None) -> None:
    """Give the reason why this process is about to fail, and the exit code if it matters to whoever started it."""
    _print(ERROR_MARK, text)
    if code is not None:
        _print(EXIT_MARK, str(code))


def _print(mark: str, text: str) -> None:
    for line in text.splitlines():
        print(f"{mark}{line}", flush=True)


class Terminal:
    """Shows what was said: on a terminal a passing line is replaced by the next, elsewhere each has its line."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self.stream = stream
        self.live = stream.isatty()
        self.unfinished = False

    def show(self, text: str) -> None:
        self.finish()
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def show_passing(self, text: str) -> None:
        if not self.live:
            return self.show(text)
        width = shutil.get_terminal_size().columns
        self.stream.write(f"\r\x1b[K{text[: width - 1]}")
        self.stream.flush()
        self.unfinished = True

    def finish(self) -> None:
        """Leave the last passing line standing."""
        if self.unfinished:
            self.stream.write("\n")
            self.stream.flush()
        self.unfinished = False
