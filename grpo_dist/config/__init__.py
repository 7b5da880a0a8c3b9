"""What the user states, checked field by field; no arithmetic, no effects."""

from grpo_dist.config.run import RunConfig

__all__ = ["RunConfig"]
