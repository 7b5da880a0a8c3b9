"""How long a step takes: a roofline over data sheets and published efficiencies, or fitted to an earlier run."""

from grpo_dist.plan.time.efficiencies import DEFAULTS, Assumption, Efficiencies
from grpo_dist.plan.time.generation import Generation, generation_time, kv_pool, transformers_time
from grpo_dist.plan.time.inputs import Layout, Workload
from grpo_dist.plan.time.lengths import Lengths
from grpo_dist.plan.time.network import adapter_sync_time, gather_time, gradient_sync_time, merged_sync_time
from grpo_dist.plan.time.step import Balance, StepPart, StepTime, balance, step_time
from grpo_dist.plan.time.training import LearningRateAdvice, Padding, Training, learning_rate_advice, training_time

__all__ = [
    "DEFAULTS",
    "Assumption",
    "Balance",
    "Efficiencies",
    "Generation",
    "Layout",
    "LearningRateAdvice",
    "Lengths",
    "Padding",
    "StepPart",
    "StepTime",
    "Training",
    "Workload",
    "adapter_sync_time",
    "balance",
    "gather_time",
    "generation_time",
    "gradient_sync_time",
    "kv_pool",
    "learning_rate_advice",
    "merged_sync_time",
    "step_time",
    "training_time",
    "transformers_time",
]
