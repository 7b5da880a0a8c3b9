"""A cluster's run tried on this machine: what it has, the run itself, and what would fail on the cluster."""

from grpo_dist.debug.run import debug, open_debug

__all__ = ["debug", "open_debug"]
