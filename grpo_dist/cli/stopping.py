"""What a command does when the person, or the system, stops it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def until_stopped() -> Iterator[None]:
    """Exit with 128 + the signal's number, as shells have it, and say that nothing is left."""
    from grpo_dist.cluster.process import Interrupted

    try:
        yield
    except Interrupted as stop:
        click.echo(f"stopped by {stop}; nothing was written", err=True)
        raise click.exceptions.Exit(128 + stop.signum) from stop
