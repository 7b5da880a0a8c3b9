"""LaunchPlan → text of the files other programs read; deterministic, no effects."""

from grpo_dist.render.files import RENDERED, render_files

__all__ = ["RENDERED", "render_files"]
