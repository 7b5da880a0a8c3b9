"""The servers of a pool as one process knows them: what each owes it, and which of them do not answer."""

from __future__ import annotations

import time
from dataclasses import dataclass

from grpo_dist.rollout.frames import Frame

BACK_OFF_SECONDS = (0.5, 10.0)
"""First and longest pause between two attempts to reach a server that failed."""


@dataclass(eq=False)
class Member:
    """One server as this process knows it."""

    name: str
    url: str
    outstanding: int = 0
    """Tokens this process may still get from it."""
    completions: int = 0
    """Of requests it has not answered to the end."""
    down: bool = False
    failure: str = ""
    """Why it was counted out."""
    pause: float = 0.0
    """Seconds between the last two attempts to reach it, and `retry_at` (monotonic) the next."""
    retry_at: float = 0.0

    def wait_longer(self) -> None:
        first, longest = BACK_OFF_SECONDS
        self.pause = min(2 * self.pause, longest) if self.pause else first
        self.retry_at = time.monotonic() + self.pause


class Debt:
    """What one request may still bring, counted at its server."""

    def __init__(self, member: Member, n: int, max_tokens: int) -> None:
        self.member, self.left = member, [max_tokens] * n
        member.outstanding += n * max_tokens
        member.completions += n

    def received(self, frame: Frame) -> None:
        paid = self.left[frame.index] if frame.finish else min(len(frame.token_ids), self.left[frame.index])
        self.left[frame.index] -= paid
        self.member.outstanding -= paid

    def settle(self) -> None:
        self.member.outstanding -= sum(self.left)
        self.member.completions -= len(self.left)
