"""Pure arithmetic from the configuration to what will be launched; nothing is written or started."""

from grpo_dist.plan.batch import BatchPlan
from grpo_dist.plan.inputs import Measured
from grpo_dist.plan.launch import LaunchPlan, plan_run
from grpo_dist.plan.topology import Replica, Topology

__all__ = ["BatchPlan", "LaunchPlan", "Measured", "Replica", "Topology", "plan_run"]
