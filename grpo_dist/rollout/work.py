"""What an engine is asked for, and since when it has brought forth nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Work:
    """The requests of one engine.

    A caller that loses patience takes its request away, and asks again later; the engine has been silent all the same.
    So silence adds up over such requests, and only a sign ends it.
    """

    def __init__(self) -> None:
        self.in_flight = 0
        self._busy_before = 0.0
        self._busy_since = 0.0
        self._silent_before = 0.0
        self._silent_since = 0.0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """For the time of one request; its end is a sign, being taken away is none."""
        if not self.in_flight:
            self._busy_since = self._silent_since = time.monotonic()
        self.in_flight += 1
        try:
            yield
            self.sign()
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                now = time.monotonic()
                self._busy_before += now - self._busy_since
                self._silent_before += now - self._silent_since

    def sign(self) -> None:
        """The engine has put something out."""
        self._silent_before, self._silent_since = 0.0, time.monotonic()

    @property
    def stalled_seconds(self) -> float:
        """With work and without a sign since the last one; 0 where there is no work."""
        return self._silent_before + time.monotonic() - self._silent_since if self.in_flight else 0.0

    @property
    def busy_seconds(self) -> float:
        """In all, with at least one request."""
        return self._busy_before + (time.monotonic() - self._busy_since if self.in_flight else 0.0)
