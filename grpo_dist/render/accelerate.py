"""The configuration file of `accelerate launch`."""

from __future__ import annotations

import yaml

from grpo_dist.plan import LaunchPlan


def accelerate_yaml(plan: LaunchPlan) -> str:
    """Accelerate's YAML for this plan.

    mixed_precision stays `no` here: TRL's `bf16` and `fp16` decide it inside the process.
    """
    several = plan.topology.num_processes > 1
    return yaml.safe_dump(
        {
            "compute_environment": "LOCAL_MACHINE",
            "debug": False,
            # MULTI_CPU would be launched as one process without a word (accelerate 1.15);
            # MULTI_GPU starts them all, and TRL's use_cpu makes them MULTI_CPU.
            "distributed_type": "MULTI_GPU" if several else "NO",
            "machine_rank": 0,
            "main_process_port": 0,  # a free one, found at launch
            "main_training_function": "main",
            "mixed_precision": "no",
            "num_machines": plan.topology.nodes,
            "num_processes": plan.topology.num_processes,
            "rdzv_backend": "static",
            "same_network": True,
            "use_cpu": plan.topology.device == "cpu" and not several,
        },
        sort_keys=True,
    )
