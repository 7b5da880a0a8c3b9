"""Pure arithmetic from what the user states to what will be launched; no effects."""

from grpo_dist.plan.batch import BatchPlan
from grpo_dist.plan.launch import LaunchPlan, plan_run
from grpo_dist.plan.topology import Topology

__all__ = ["BatchPlan", "LaunchPlan", "Topology", "plan_run"]
