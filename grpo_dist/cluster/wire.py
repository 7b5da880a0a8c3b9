"""The connection between the head node's supervisor and each other one: JSON lines both ways, and signs of life.

A connection that is silent for LOST_SECONDS is lost, whatever TCP says: a node without power sends no farewell.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

BEAT_SECONDS = 2.0
LOST_SECONDS = 15.0
LONGEST_LINE = 1 << 20

Message = dict[str, Any]


class Connection:
    """One end of it. Whoever iterates receives the messages that are not signs of life, until the other end is lost."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @property
    def here(self) -> str:
        """Our address on the way to the other end."""
        return self.writer.get_extra_info("sockname")[0]

    @property
    def there(self) -> str:
        return self.writer.get_extra_info("peername")[0]

    def send(self, message: Message) -> None:
        """Never waits; to a lost connection it says nothing."""
        if not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> Message | None:
        """The next message; None when the other end is lost."""
        while True:
            line = await self._line()
            if not line.endswith(b"\n"):
                return None
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                if message:  # an empty one is a sign of life
                    return message

    async def messages(self) -> AsyncIterator[Message]:
        while (message := await self.receive()) is not None:
            yield message

    async def beat(self) -> None:
        """Give signs of life until cancelled."""
        while True:
            self.send({})
            await asyncio.sleep(BEAT_SECONDS)

    async def close(self) -> None:
        """Send what is waiting, as far as the other end takes it, and hang up."""
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self.writer.drain(), BEAT_SECONDS)
        self.writer.close()

    async def _line(self) -> bytes:
        try:
            return await asyncio.wait_for(self.reader.readline(), LOST_SECONDS)
        except (OSError, TimeoutError, ValueError):  # reset, silent, or a line of somebody else's
            return b""
