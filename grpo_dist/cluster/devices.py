"""The environment variables that give a process the devices and threads of the plan."""

from __future__ import annotations

import os
from collections.abc import Mapping

from grpo_dist.config import RunConfig
from grpo_dist.plan import Topology
from grpo_dist.plan.gpu_mask import visible_gpus

ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"
ALLOCATORS = (ALLOCATOR, "PYTORCH_ALLOC_CONF")
"""The variable, and its newer name."""


def allocator_environment(config: RunConfig, topology: Topology, environ: Mapping[str, str]) -> dict[str, str]:
    """Segments that grow, so that memory is not lost between them, where a process has the whole of its GPU's tensors.

    vLLM's sleep mode has an allocator of its own, and engines over several GPUs hand out addresses of their memory:
    neither goes with it. What the user has set stays.
    """
    colocated = topology.mode == "colocate"
    forbidden = colocated and (config.rollout.enable_sleep_mode or topology.tensor_parallel_size > 1)
    if topology.device != "cuda" or forbidden or any(name in environ for name in ALLOCATORS):
        return {}
    return {ALLOCATOR: "expandable_segments:True"}


def device_environment(topology: Topology, environ: Mapping[str, str], *, alone: bool) -> dict[str, str]:
    """Variables to set beside `environ`; what the user has set of threads stays.

    With alone the process is a single one and gets one device.

    Raises:
        PlanError: fewer GPUs are visible than planned.
    """
    if topology.device == "cuda":
        visible = visible_gpus(topology.gpus_per_node, environ.get("CUDA_VISIBLE_DEVICES"))
        training = [visible[index] for index in topology.trainer_gpus]
        return {"CUDA_VISIBLE_DEVICES": training[0] if alone else ",".join(training)}
    processes = 1 if alone else topology.num_processes // topology.trainer_nodes
    ours = {
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // processes)),
        # Threads that spin while they wait for one another program has displaced made generation 12 times slower.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    unset = {name: value for name, value in ours.items() if name not in environ}
    # Without the second, a resumed two-process run cannot place its optimizer state ("tagged with cpu:0").
    return {**unset, "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_TORCH_DEVICE": "cpu"}
