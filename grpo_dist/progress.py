"""Progress messages from the processes of a run to the user's terminal.

The processes of a run print a great deal, and all of it goes to the log. Lines that start with one of these marks are
also shown to the user.
"""

from __future__ import annotations

import shutil
import sys
from typing import TextIO

from grpo_dist.masking import hidden

MARK = "grpo-dist: "
PASSING_MARK = "grpo-dist~ "
ERROR_MARK = "grpo-dist! "
EXIT_MARK = "grpo-dist= "
"""Precedes the exit code with which a process is about to end: launchers turn every failure into exit code 1."""


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


class Terminal:
    """Shows messages. On a terminal a passing line is replaced by the next one, elsewhere each gets its own line."""

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
        """Keep the last passing line."""
        if self.unfinished:
            self.stream.write("\n")
            self.stream.flush()
        self.unfinished = False
