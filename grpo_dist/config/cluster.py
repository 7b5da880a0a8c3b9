"""The machines and GPUs, how generation and training share them, and the site settings.

A site's Slurm and node settings for every job are in `~/.config/grpo-dist/site.yaml`.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from grpo_dist.config.base import Conflict, Fraction, Name, NonNegative, Positive, Section, TimeLimit

Auto = Literal["auto"]
Above0 = Annotated[float, Field(gt=0)]
Nodes = Annotated[int, Field(ge=1, le=10_000)]
Processes = Annotated[int, Field(ge=1, le=100_000)]


class TimeoutSection(Section):
    """Seconds after which a rollout server, or a call to one, counts as failed."""

    takes = "a group of seconds"

    ready: Above0 = 900.0
    """From starting a replica until it answers: load the model, compile, capture graphs."""
    connect: Above0 = 5.0
    """Until a connection is established."""
    first_token: Above0 = 600.0
    """From a request to its first token; requests wait here for free space in the engine."""
    progress: Above0 = 120.0
    """Between two signs of life of an engine that has work."""
    request: Above0 = 3600.0
    """A whole request, from first byte to last."""
    sync: Above0 = 300.0
    """Giving a replica a new adapter."""
    recover: Above0 = 900.0
    """Waiting for any replica when all are gone; then the run saves and asks to be restarted."""


class RolloutSection(Section):
    """Who generates completions, and where."""

    backend: Literal["transformers", "vllm"] = "transformers"
    """`transformers`: the training processes generate with `model.generate`; `vllm`: vLLM engines do."""
    mode: Literal["server", "colocate"] = "colocate"
    """With vllm: `colocate` shares each training GPU; `server` uses separate GPUs for generation."""
    replicas: Processes | Auto = "auto"
    """Server mode: vLLM servers, each on tensor_parallel_size GPUs. `auto` balances generation and training."""
    nodes: Annotated[int, Field(ge=0, le=10_000)] | Auto = "auto"
    """Server mode: whole nodes given to generation; 0 gives it some GPUs of each node instead."""
    tensor_parallel_size: Positive | Auto = "auto"
    """GPUs of one replica; `auto` takes the fewest that hold the model."""
    gpu_memory_utilization: Fraction | Auto = "auto"
    """Share of a GPU's memory vLLM takes; `auto` is 0.9 in server mode, and in colocate mode what training leaves."""
    enable_sleep_mode: bool = False
    """Colocate: vLLM releases its memory while the step is trained."""
    sync: Literal["adapter", "merged"] = "adapter"
    """What a weight sync sends: the LoRA adapter, or the whole merged model."""
    transport: Literal["shared", "push"] = "shared"
    """How an adapter reaches a server: `shared` through the run directory, `push` over HTTP to the server's own disk.
   """
    max_staleness: Annotated[int, Field(ge=0, le=16)] = 0
    """Server mode: the completions of a step come from the policy of so many optimizer steps before it, and the servers
    write them while the model trains. 0: generation and training take turns."""
    canary_steps: NonNegative = 50
    """Steps between checks that servers and trainer give the same tokens the same log-probabilities; 0: no checks."""
    max_restarts: NonNegative = 3
    """Consecutive restarts of a failing replica before it is given up."""
    timeouts: TimeoutSection = TimeoutSection.model_construct()
    """How long anything may take before it counts as failed."""

    @property
    def uses_vllm(self) -> bool:
        return self.backend == "vllm"

    @property
    def colocated(self) -> bool:
        """Whether every training process has a vLLM engine in it."""
        return self.uses_vllm and self.mode == "colocate"

    @property
    def serves(self) -> bool:
        """Whether vLLM servers generate."""
        return self.uses_vllm and self.mode == "server"

    @property
    def syncs_adapter(self) -> bool:
        """Whether a weight sync sends the adapter alone."""
        return self.sync == "adapter"

    def conflicts(self) -> Iterator[Conflict]:
        if not self.uses_vllm:
            yield from self._only_with_vllm()
        elif self.colocated:
            yield from self._only_in_server_mode()
        elif self.enable_sleep_mode:
            yield ("enable_sleep_mode",), "a server has its GPUs to itself and need not sleep; remove it"
        elif self.max_staleness and not self.syncs_adapter:
            yield (
                ("max_staleness",),
                "a server holds merged weights of one policy only; set it to 0, or --set rollout.sync=adapter",
            )

    def _only_with_vllm(self) -> Iterator[Conflict]:
        what = "the training processes generate themselves; remove it, or set rollout.backend: vllm"
        stated = {
            "mode": self.mode == "server",
            "replicas": self.replicas != "auto",
            "nodes": self.nodes not in ("auto", 0),
            "tensor_parallel_size": self.tensor_parallel_size not in ("auto", 1),
            "gpu_memory_utilization": self.gpu_memory_utilization != "auto",
            "enable_sleep_mode": self.enable_sleep_mode,
        }
        yield from (((name,), what) for name, there in stated.items() if there)
        if self.max_staleness:
            yield (
                ("max_staleness",),
                "the training processes generate themselves and cannot train meanwhile; set it to 0, or generate on "
                "other GPUs: --set rollout.backend=vllm --set rollout.mode=server",
            )

    def _only_in_server_mode(self) -> Iterator[Conflict]:
        what = "every training GPU generates too in colocate mode; remove it, or set rollout.mode: server"
        stated = {"replicas": self.replicas != "auto", "nodes": self.nodes not in ("auto", 0)}
        yield from (((name,), what) for name, there in stated.items() if there)
        if self.max_staleness:
            yield (
                ("max_staleness",),
                "an engine on a training GPU cannot generate while the model trains there; set it to 0, or give "
                "generation its own GPUs: --set rollout.mode=server",
            )


class DistributedSection(Section):
    """How the training processes share the model."""

    strategy: Literal["ddp", "zero1", "zero2", "zero3", "fsdp2"] = "ddp"
    """`ddp` keeps the model whole on each GPU; the others shard it (DeepSpeed ZeRO stages, PyTorch FSDP2)."""
    num_processes: Processes | None = None
    """Training processes in all. Default: with GPUs one per training GPU, on CPU one per node."""
    max_per_device_train_batch_size: Positive = 16
    """Most completions a process puts through one forward and backward pass; lower it when memory runs out."""


class GpuFigures(Section):
    """Figures of a GPU that replace the table's; a GPU missing from the table needs the first three."""

    memory: Annotated[float, Field(ge=2**30, allow_inf_nan=False)] | None = None
    """Bytes a program can allocate, e.g. 8.5e10."""
    flops: Above0 | None = None
    """FLOP/s of dense matrix products in `dtype`."""
    bandwidth: Above0 | None = None
    """bytes/s from device memory."""
    link: Name | None = None
    """Link to the other GPUs of its node, a name of the planner's table."""
    dtype: Literal["bfloat16", "float16"] | None = None
    """Fastest 16-bit dtype."""


class ContainerSection(Section):
    """The container in which the processes of a job run."""

    runtime: Literal["pyxis", "apptainer"]
    """`pyxis`: srun starts it (NVIDIA's plugin, with enroot); `apptainer`: the `apptainer` program does."""
    image: Name
    """What the runtime calls the image: a file, or e.g. `nvcr.io#nvidia/pytorch:26.09-py3` for pyxis."""
    mounts: tuple[Name, ...] = ()
    """`/on/the/node:/in/the/container`, one each; the run directory and the submission directory are always mounted."""

    def conflicts(self) -> Iterator[Conflict]:
        for index, mount in enumerate(self.mounts):
            if not re.fullmatch(r"/[^:,]*(:/[^:,]*(:[^:,]+)?)?", mount):
                yield ("mounts", index), f"{mount!r} is no mount; write for example `/data:/data`"


class ClusterSection(Section):
    """The machines, and the Slurm options for them."""

    nodes: Nodes = 1
    """Number of machines."""
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 1
    """GPUs of a machine; 0 trains on CPU."""
    gpu: Name = "H100"
    """Kind of GPU, for the memory and time estimates; a name of the planner's table."""
    gpu_overrides: GpuFigures = GpuFigures()
    """GPU figures that replace the table's, e.g. `{memory: 8.5e10}`."""
    intra_node_link: Name | None = None
    """Link between the GPUs of a node, a name of the planner's table; default: the GPU's usual link."""
    inter_node_link: Name = "infiniband_ndr"
    """Link between nodes, a name of the planner's table."""
    time: TimeLimit = "24:00:00"
    """Slurm's `--time`: minutes, hours:minutes:seconds, or days-hours:minutes:seconds."""
    partition: Name | None = None
    """Slurm's `--partition`."""
    account: Name | None = None
    """Slurm's `--account`."""
    qos: Name | None = None
    """Slurm's `--qos`."""
    constraint: Name | None = None
    """Slurm's `--constraint`."""
    scratch: Name | None = None
    """Directory on each node's own disk for temporary files; may name variables, e.g. `/local/$SLURM_JOB_ID`."""
    network_interface: Name | None = None
    """Interface the nodes talk over, e.g. `ib0`; default: the one on the route to the first node."""
    container: ContainerSection | None = None
    """The container a job runs in; default: none."""
    cpus_per_gpu: Positive = 8
    """CPUs requested per GPU."""
    sbatch: tuple[Name, ...] = ()
    """Further options of sbatch, one each; `--mem=…`, `--gres=gpu:a100:GPUS`, `--output=…` replace the script's own."""
    setup: tuple[Name, ...] = ()
    """Shell lines that make the environment ready on a node, e.g. `module load cuda`, `source .venv/bin/activate`."""
    signal_seconds: Annotated[int, Field(ge=60)] = 300
    """Seconds before the time limit, or before a preemption, at which training saves and the job requeues."""
    max_requeues: NonNegative = 20
    """Most times a job requeues itself."""
    stall_seconds: Above0 = 600.0
    """Least time without a step that counts as a stall, or ten times the run's slowest step if that is longer."""


FILE_VARIABLE = "GRPO_DIST_SITE"


class SiteSection(Section):
    """Settings of `cluster:` for all runs of a site; a run's own configuration overrides them."""

    partition: Name | None = None
    """Slurm's `--partition`."""
    account: Name | None = None
    """Slurm's `--account`."""
    qos: Name | None = None
    """Slurm's `--qos`."""
    constraint: Name | None = None
    """Slurm's `--constraint`."""
    time: TimeLimit | None = None
    """Slurm's `--time`."""
    sbatch: tuple[Name, ...] = ()
    """Further options of sbatch, one each; `--mem=…`, `--gres=gpu:a100:GPUS`, `--output=…` replace the script's own."""
    modules: tuple[Name, ...] = ()
    """Environment modules to load, in this order."""
    activate: tuple[Name, ...] = ()
    """Shell lines after the modules, e.g. `source ~/grpo/.venv/bin/activate` or `conda activate grpo`."""
    scratch: Name | None = None
    """`cluster.scratch`: where temporary files go on a node."""
    network_interface: Name | None = None
    """`cluster.network_interface`: the interface the nodes talk over."""
    container: ContainerSection | None = None
    """`cluster.container`: the container jobs run in."""

    def cluster_settings(self) -> dict[str, Any]:
        """The file's settings under the names of `cluster:`; modules and activate become its setup."""
        stated = self.model_dump(mode="json", exclude={"modules", "activate"}, exclude_none=True, exclude_unset=True)
        load = [f"module load {shlex.join(self.modules)}"] if self.modules else []
        setup = [*load, *self.activate]
        return {**stated, "setup": setup} if setup else stated


def site_file() -> tuple[Path, bool]:
    """Where the site settings are looked for, and whether GRPO_DIST_SITE gives the path."""
    if named := os.environ.get(FILE_VARIABLE):
        return Path(named), True
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "grpo-dist" / "site.yaml", False


def with_site(data: dict[str, Any], site: SiteSection) -> dict[str, Any]:
    """A configuration's data, completed with the site's settings that its `cluster:` lacks; lists are not merged."""
    cluster = data.get("cluster") or {}
    if not isinstance(cluster, dict):
        return data  # refused unchanged later
    return {**data, "cluster": {**site.cluster_settings(), **cluster}}
