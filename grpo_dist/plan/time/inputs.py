"""The work of a step, and the hardware it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from grpo_dist.errors import PlanError
from grpo_dist.plan.specs import Architecture
from grpo_dist.plan.specs.hardware import Gpu, Link
from grpo_dist.plan.time.lengths import Lengths
from grpo_dist.plan.time.training import Padding


@dataclass(frozen=True)
class Workload:
    """One optimizer step of GRPO, as TRL 1.15–1.16 takes it."""

    architecture: Architecture
    prompts_per_step: int
    num_generations: int
    lengths: Lengths
    trainable_parameters: int
    lora: bool = True
    micro_batch: int = 1
    """per_device_train_batch_size."""
    gradient_checkpointing: bool = True
    scoring_forwards: int = 1
    """Forwards without gradient per completion: one for the old log-probabilities with num_iterations > 1 (or with
    vLLM's correction if the loss cannot provide it), one more with beta > 0."""
    num_iterations: int = 1
    """Optimizer steps per generation."""
    padding: Padding = "step"
    eager: bool = False
    """Whether attention writes its scores to memory."""

    @property
    def completions(self) -> int:
        """Per step."""
        return self.prompts_per_step * self.num_generations

    @property
    def tokens(self) -> float:
        """Prompts and completions of a step, without padding."""
        return self.completions * (self.lengths.prompt + self.lengths.mean)


@dataclass(frozen=True)
class Layout:
    """Which GPUs train and which generate. Counts cover the whole run unless the name says otherwise."""

    gpu: Gpu
    intra: Link
    """Between the GPUs of a node."""
    inter: Link
    """From one node to the others, all its ports together."""
    nodes: int
    gpus_per_node: int
    trainer_gpus: int
    rollout_gpus: int = 0
    """GPUs that only generate; 0: the training GPUs generate too (colocate)."""
    uses_vllm: bool = True
    tensor_parallel: int = 1
    """GPUs of one replica."""
    gpu_memory_utilization: float = 0.9
    """Share of a generating GPU's memory that vLLM takes."""
    max_num_seqs: int = 256
    """Sequences a replica runs at a time at most."""
    kv_pool_bytes: float | None = None
    """KV cache on each generating GPU; None: what the weights leave of the share of memory."""
    partitioned: bool = False
    """ZeRO-3 or FSDP2: weights are gathered for every pass."""
    syncs_adapter: bool = True
    """Whether a weight sync sends the adapter alone; else the whole merged model."""
    max_staleness: int = 0
    """Steps whose completions are written while earlier ones train; 0: generation and training take turns."""
    sleeps: bool = False
    """Colocated engines release their memory while the model trains."""

    def __post_init__(self) -> None:
        total = self.nodes * self.gpus_per_node
        if self.trainer_gpus < 1 or self.trainer_gpus + self.rollout_gpus > total:
            raise PlanError(
                f"{self.trainer_gpus} training and {self.rollout_gpus} generating GPUs do not fit "
                f"{self.nodes} nodes × {self.gpus_per_node} GPUs = {total}",
                hint=f"share out at most {total}, at least one of them for training",
            )
        if self.generating_gpus % self.tensor_parallel:
            raise PlanError(
                f"{self.generating_gpus} generating GPUs do not divide into replicas of {self.tensor_parallel}",
                hint=f"take a multiple of {self.tensor_parallel} GPUs, or tensor parallel 1",
            )

    @property
    def colocated(self) -> bool:
        return self.rollout_gpus == 0

    @property
    def generating_gpus(self) -> int:
        return self.rollout_gpus or self.trainer_gpus

    @property
    def replicas(self) -> int:
        return self.generating_gpus // self.tensor_parallel

    @property
    def gpus(self) -> int:
        """GPUs in use."""
        return self.trainer_gpus + self.rollout_gpus

    @property
    def trainer_nodes(self) -> int:
        """Fewest nodes with the training GPUs."""
        return ceil(self.trainer_gpus / self.gpus_per_node)

    @property
    def generating_nodes(self) -> int:
        """Most nodes with a replica: one replica on each, as long as there are enough nodes."""
        return min(self.nodes, self.replicas)
