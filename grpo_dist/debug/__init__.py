"""A rehearsal of a cluster run on this machine, and what it finds that would fail on the cluster."""

from grpo_dist.debug.run import debug, open_debug

__all__ = ["debug", "open_debug"]
