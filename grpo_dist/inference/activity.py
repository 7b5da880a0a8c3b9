"""What an engine is doing: requests in flight, and how long it has been silent. It needs no vLLM."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class EngineActivity:
    """Counts the requests of one engine, and for how long it has produced no output.

    A caller that times out cancels its request and asks again later, but the engine has been silent all the time. So
    silent time adds up over cancelled requests, and only output resets it.
    """

    def __init__(self) -> None:
        self.in_flight = 0
        self._busy_before = 0.0
        self._busy_since = 0.0
        self._silent_before = 0.0
        self._silent_since = 0.0

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Covers one request. Its regular end counts as output, its cancellation does not."""
        if not self.in_flight:
            self._busy_since = self._silent_since = time.monotonic()
        self.in_flight += 1
        try:
            yield
            self.output()
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                now = time.monotonic()
                self._busy_before += now - self._busy_since
                self._silent_before += now - self._silent_since

    def output(self) -> None:
        """Record that the engine produced output."""
        self._silent_before, self._silent_since = 0.0, time.monotonic()

    @property
    def stalled_seconds(self) -> float:
        """Seconds with requests but without output, since the last output; 0 without requests."""
        return self._silent_before + time.monotonic() - self._silent_since if self.in_flight else 0.0

    @property
    def busy_seconds(self) -> float:
        """Total seconds with at least one request."""
        return self._busy_before + (time.monotonic() - self._busy_since if self.in_flight else 0.0)
