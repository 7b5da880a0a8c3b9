"""The files of a run as text, from its plan: for accelerate, DeepSpeed and Slurm. Deterministic, no effects."""

from grpo_dist.render.files import RENDERED, render_files

__all__ = ["RENDERED", "render_files"]
