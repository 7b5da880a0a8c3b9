"""The shape of a model, read without loading it, and every count that follows from it."""

from grpo_dist.plan.architecture.families import bitsandbytes
from grpo_dist.plan.architecture.lookup import architecture_of
from grpo_dist.plan.architecture.model import Architecture, Linear, Quantization

__all__ = ["Architecture", "Linear", "Quantization", "architecture_of", "bitsandbytes"]
