"""What there is to run on, and how generation and training share it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from grpo_dist.config.section import Fraction, Name, NonNegative, Positive, Section

Auto = Literal["auto"]


class RolloutSection(Section):
    """Who generates completions, and where."""

    backend: Literal["transformers", "vllm"] = "transformers"
    """`transformers`: the training processes generate with `model.generate`; `vllm`: vLLM engines do."""
    mode: Literal["server", "colocate"] = "colocate"
    """With vllm: `colocate` shares each training GPU; `server` gives generation GPUs of its own."""
    replicas: Positive | Auto = "auto"
    """Server mode: vLLM servers, each on tensor_parallel_size GPUs. `auto` balances generation and training."""
    nodes: NonNegative | Auto = "auto"
    """Server mode: whole nodes given to generation; 0 gives it some GPUs of each node instead."""
    tensor_parallel_size: Positive | Auto = "auto"
    """GPUs of one replica; `auto` takes the fewest that hold the model."""
    gpu_memory_utilization: Fraction | Auto = "auto"
    """Share of a GPU's memory vLLM takes; `auto` is 0.9 in server mode and what training leaves in colocate mode."""
    enable_sleep_mode: bool = False
    """Colocate: vLLM gives its memory back while the step is trained."""
    sync: Literal["adapter", "merged"] = "adapter"
    """What a weight sync sends: the LoRA adapter, or the whole merged model."""


class DistributedSection(Section):
    """How the training processes share the model."""

    strategy: Literal["ddp", "zero1", "zero2", "zero3", "fsdp2"] = "ddp"
    """`ddp` keeps the model whole on each GPU; the others shard it (DeepSpeed ZeRO stages, PyTorch FSDP2)."""
    num_processes: Positive | None = None
    """Training processes in all. With GPUs: one per training GPU (leave it out); on CPU: 1 when not given."""
    max_per_device_train_batch_size: Positive = 16
    """Most completions a process puts through one forward and backward pass; lower it when memory runs out."""


class ClusterSection(Section):
    """The machines, and what Slurm has to be told about them."""

    nodes: Positive = 1
    """Machines in all."""
    gpus_per_node: NonNegative = 1
    """GPUs of a machine; 0 trains on CPU."""
    gpu: Name = "H100"
    """Kind of GPU, for the memory and time estimates; a name of the planner's table."""
    gpu_overrides: dict[str, Any] = Field(default_factory=dict)
    """Figures that replace the table's, e.g. `{memory_bytes: 85899345920}`."""
    intra_node_link: Name | None = None
    """Link between the GPUs of a node, a name of the planner's table; the GPU's usual one when not given."""
    inter_node_link: Name = "infiniband_ndr"
    """Link between nodes, a name of the planner's table."""
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d+(:\d+){0,2}$")] = "24:00:00"
    """Slurm's `--time`."""
    partition: Name | None = None
    """Slurm's `--partition`."""
    account: Name | None = None
    """Slurm's `--account`."""
    qos: Name | None = None
    """Slurm's `--qos`."""
    constraint: Name | None = None
    """Slurm's `--constraint`."""
    cpus_per_gpu: Positive = 8
    """CPUs a job asks for with each GPU."""
    sbatch: tuple[Name, ...] = ()
    """Further options of sbatch, one each, e.g. `--mem=0`."""
    setup: tuple[Name, ...] = ()
    """Shell lines that make the environment ready on a node, e.g. `module load cuda`, `source .venv/bin/activate`."""
