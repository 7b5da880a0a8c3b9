"""The shape of a model, read without loading it, and the counts derived from it."""

from grpo_dist.plan.specs.architecture import Architecture, Linear, Quantization, bitsandbytes
from grpo_dist.plan.specs.lookup import architecture_of

__all__ = ["Architecture", "Linear", "Quantization", "architecture_of", "bitsandbytes"]
