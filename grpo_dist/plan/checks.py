"""Settings that are valid alone but cannot run together, which the libraries would report hours later, or never.

Includes when Unsloth cannot train: it supports only one process on one GPU.

Also whether a step, the steps between checkpoints, and the whole run finish within a job's time limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from math import ceil
from typing import Any, NamedTuple

from grpo_dist.config import RunConfig
from grpo_dist.config.base import seconds_of
from grpo_dist.errors import PlanError
from grpo_dist.plan.batch import Alternative, BatchPlan, PlanRefusal
from grpo_dist.plan.inputs import PlanInputs, quantization_of
from grpo_dist.plan.memory.vllm import SERVED_RANKS
from grpo_dist.plan.topology import Topology

TRL = Alternative({"model.backend": "trl"})


class Obstacle(NamedTuple):
    """Why Unsloth cannot do what is planned, and what to set instead."""

    what: str
    ways: tuple[Alternative, ...]


def obstacle(config: RunConfig, where: Topology) -> Obstacle | None:
    """Why Unsloth cannot train this; None if it can, as far as can be determined without importing it.

    Sharding is not checked here: it is refused for a single process with any backend.
    """
    if where.num_processes > 1:
        one_gpu = {"cluster.nodes": 1, "cluster.gpus_per_node": 1}
        alone = Alternative({"distributed.num_processes": 1} if where.on_cpu else one_gpu)
        return Obstacle(
            f"Unsloth trains in one process, and {where.num_processes} are planned",
            (TRL, alone),
        )
    if "quantization_config" in config.model.model_init_kwargs:
        what = "Unsloth loads weights as they are stored, and model.model_init_kwargs asks for quantized ones"
        return Obstacle(what, (TRL, Alternative({"model.model_init_kwargs": {}})))
    if where.serves:
        return Obstacle(
            "Unsloth generates in the training process, and rollout.mode is server",
            (TRL, Alternative({"rollout.mode": "colocate", "rollout.replicas": "auto", "rollout.nodes": "auto"})),
        )
    if where.colocated and where.on_cpu:
        return Obstacle(
            "Unsloth's vLLM needs a GPU, and cluster.gpus_per_node is 0",
            (TRL, Alternative({"rollout.backend": "transformers"})),
        )
    return None


TOKEN_MODES = ("token_truncate", "token_mask")
UNSERVED_MODULES = ("embed_tokens", "lm_head")
"""vLLM serves adapters on the layers between them."""


class Contradiction(NamedTuple):
    what: str
    ways: tuple[Alternative, ...]
    """Changes that may resolve it; each is planned before it is suggested."""


def refuse_contradictions(basis: PlanInputs) -> None:
    """Checks that do not depend on the split of the machines.

    Raises:
        PlanError: the first contradiction found.
    """
    found = (_of_the_device(basis), _of_the_rollouts(basis.config), _of_the_model(basis), _of_the_job(basis.config))
    _refuse(chain.from_iterable(found))


def refuse_launch(config: RunConfig, where: Topology, batch: BatchPlan) -> None:
    """Checks that depend on the number of processes.

    Raises:
        PlanError: the first contradiction found.
    """
    _refuse(_of_the_launch(config, where, batch))


def _refuse(found: Iterable[Contradiction]) -> None:
    for what, ways in found:
        raise PlanRefusal(what, ways)


def _set(name: str, *values: Any) -> tuple[Alternative, ...]:
    """Changes of one setting to each of these values, nearest first."""
    return tuple(Alternative({name: value}) for value in values)


def extra(config: RunConfig, name: str, default: Any = None) -> Any:
    """A further field of `GRPOConfig` as set under `grpo:`."""
    return (config.grpo.model_extra or {}).get(name, default)


def corrects_sampling(config: RunConfig) -> bool:
    """TRL corrects for the difference between vLLM's and the trainer's probabilities (its default)."""
    return config.rollout.uses_vllm and config.grpo.vllm_importance_sampling_correction


def _of_the_device(basis: PlanInputs) -> Iterator[Contradiction]:
    config, on_cpu = basis.config, basis.config.cluster.gpus_per_node == 0
    rollout, dtype = config.rollout, config.model.dtype
    if on_cpu and rollout.uses_vllm and not rollout.syncs_adapter:
        yield Contradiction(
            "rollout.sync: merged weights travel by NCCL, which needs CUDA, and cluster.gpus_per_node is 0",
            (Alternative({"rollout.sync": "adapter"}),),
        )
    if on_cpu and rollout.tensor_parallel_size not in ("auto", 1):
        yield Contradiction(
            f"rollout.tensor_parallel_size: {rollout.tensor_parallel_size} GPUs of a replica, and "
            f"cluster.gpus_per_node is 0",
            _set("rollout.tensor_parallel_size", 1),
        )
    if on_cpu and config.distributed.strategy == "fsdp2":
        yield Contradiction(
            "distributed.strategy: Accelerate runs fsdp2 on CPU as plain DDP, and does not say so",
            _set("distributed.strategy", "ddp", "zero2", "zero3"),
        )
    if on_cpu and extra(config, "tf32"):
        yield Contradiction("grpo.tf32: TensorFloat-32 needs an NVIDIA GPU from Ampere on", _set("grpo.tf32", False))
    if not on_cpu and basis.gpu.name == "cpu":
        ways = (*_set("cluster.gpus_per_node", 0), *_set("cluster.gpu", "h100"))
        yield Contradiction("cluster.gpu: cpu is no GPU", ways)
    if not on_cpu and dtype == "bfloat16" and basis.gpu.dtype == "float16":
        yield Contradiction(
            f"model.dtype: {basis.gpu.name} has no bfloat16; Transformers and vLLM refuse it there",
            _set("model.dtype", "float16"),
        )


def _of_the_rollouts(config: RunConfig) -> Iterator[Contradiction]:
    if not config.rollout.uses_vllm:
        return
    if config.rollout.syncs_adapter and config.lora.r > SERVED_RANKS[-1]:
        yield Contradiction(
            f"lora.r: vLLM serves adapters up to rank {SERVED_RANKS[-1]}, not {config.lora.r}",
            (Alternative({"lora.r": SERVED_RANKS[-1]}), _whole_weights(config)),
        )
    targets = () if config.lora.target_modules == "all-linear" else config.lora.target_modules
    unserved = [name for name in targets if name.rpartition(".")[2] in UNSERVED_MODULES]
    if config.rollout.syncs_adapter and unserved:
        yield Contradiction(
            f"lora.target_modules: vLLM serves no adapter on {', '.join(unserved)}",
            (*_set("lora.target_modules", "all-linear"), _whole_weights(config)),
        )
    mode = config.grpo.vllm_importance_sampling_mode
    if config.grpo.loss_type == "vespo" and corrects_sampling(config) and mode not in TOKEN_MODES:
        yield Contradiction(
            f"grpo.loss_type: vespo with vLLM weighs single tokens, and vllm_importance_sampling_mode is {mode}",
            _set("grpo.vllm_importance_sampling_mode", *TOKEN_MODES),
        )
    if extra(config, "use_transformers_continuous_batching"):
        yield Contradiction(
            "grpo.use_transformers_continuous_batching: rollout.backend is vllm, so Transformers generates nothing",
            _set("grpo.use_transformers_continuous_batching", False),
        )


def _whole_weights(config: RunConfig) -> Alternative:
    """An adapter merged into the model can always be sent: by TRL, to one server or to colocated engines."""
    one = {"rollout.replicas": 1} if config.rollout.serves else {}
    return Alternative({"rollout.sync": "merged", **one}, "sends whole weights")


def _more_processes(config: RunConfig) -> tuple[Alternative, ...]:
    return (
        _set("cluster.gpus_per_node", 2, 4, 8) if config.cluster.gpus_per_node else _set("distributed.num_processes", 2)
    )


def _of_the_model(basis: PlanInputs) -> Iterator[Contradiction]:
    config = basis.config
    kind = None if basis.architecture is None else quantization_of(config, basis.architecture)
    strategy = config.distributed.strategy
    if kind is not None and strategy in ("zero3", "fsdp2"):
        yield Contradiction(
            f"distributed.strategy: {strategy} shards weights, and those of {config.model.name_or_path} are {kind} "
            f"ones of bitsandbytes, which stay whole",
            _set("distributed.strategy", "zero2", "zero1", "ddp"),
        )
    if basis.architecture is not None and extra(config, "router_aux_loss_coef"):
        yield Contradiction(
            f"grpo.router_aux_loss_coef: {config.model.name_or_path} is no mixture of experts and has no router",
            _set("grpo.router_aux_loss_coef", 0.0),
        )
    fused = (extra(config, "liger_kernel_config") or {}).get("fused_linear_cross_entropy")
    if fused and extra(config, "use_liger_kernel"):
        yield Contradiction(
            "grpo.liger_kernel_config: fused_linear_cross_entropy replaces the output head that TRL fuses itself",
            _set("grpo.liger_kernel_config.fused_linear_cross_entropy", False),
        )


def _of_the_job(config: RunConfig) -> Iterator[Contradiction]:
    ahead, limit = config.cluster.signal_seconds, seconds_of(config.cluster.time)
    if ahead >= limit:
        yield Contradiction(
            f"cluster.signal_seconds: a job saves {ahead:,} s before its end, and cluster.time gives it {limit:,} s",
            (*_set("cluster.signal_seconds", max(60, limit // 4)), *_set("cluster.time", _written(4 * ahead))),
        )


def _of_the_launch(config: RunConfig, where: Topology, batch: BatchPlan) -> Iterator[Contradiction]:
    if not config.rollout.syncs_adapter and len(where.replicas) > 1:
        yield Contradiction(
            f"rollout.sync: TRL sends merged weights to one server, and there are {len(where.replicas)}",
            (Alternative({"rollout.sync": "adapter"}), Alternative({"rollout.replicas": 1})),
        )
    if config.model.requires_unsloth and (found := obstacle(config, where)):
        yield Contradiction(f"model.backend: {found.what}", found.ways)
    strategy, optim = config.distributed.strategy, config.grpo.optim
    if strategy != "ddp" and where.num_processes == 1:
        yield Contradiction(
            f"distributed.strategy: {strategy} shards over the training processes, and there is 1: nothing is saved",
            (*_set("distributed.strategy", "ddp"), *_more_processes(config)),
        )
    if not optim.endswith("layerwise"):
        return
    plain = optim.removesuffix("_layerwise")
    if where.num_processes > 1:
        yield Contradiction(
            f"grpo.optim: {optim} updates layer by layer in one process, and {where.num_processes} train",
            _set("grpo.optim", plain),
        )
    if batch.gradient_accumulation_steps > 1:
        yield Contradiction(
            f"grpo.optim: {optim} cannot accumulate gradients, and a step accumulates "
            f"{batch.gradient_accumulation_steps} micro-batches of {batch.per_device_train_batch_size}",
            _set("grpo.optim", plain),
        )


START_UP_SECONDS = 60
"""From the start of a job to its first step, at the least: starting Python, loading data and model on every node."""


def check_one_step(config: RunConfig, per_step: float | None, limit: float | None = None) -> None:
    """Refuse a job that ends before its first step is done and saved: it would be put back in the queue for nothing.

    Args:
        per_step: seconds of an optimizer step, if they can be estimated.
        limit: seconds the job has; None for `cluster.time`.

    Raises:
        PlanError: it is such a job.
    """
    seconds = seconds_of(config.cluster.time) if limit is None else limit
    has = f"cluster.time: a job of {config.cluster.time}" if limit is None else f"the job, which has {limit:.0f} s,"
    ahead, needed = config.cluster.signal_seconds, START_UP_SECONDS + (per_step or 0)
    if seconds > ahead + needed:
        return
    enough = max(600, ceil((ahead + 2 * needed) / 300) * 300)
    raise PlanError(
        f"{has} saves {ahead} s before its end (cluster.signal_seconds), and needs about {needed:.0f} s for its start "
        f"and one step: no step is ever done",
        hint=f"--set cluster.time={_written(enough)}" + _shorter_signal(seconds, needed)
        if limit is None
        else f"sbatch --time={enough // 60} …{_shorter_signal(seconds, needed)}",
    )


def _shorter_signal(seconds: float, needed: float) -> str:
    shorter = int(min(300, seconds - needed) / 2)
    return f", or a script rendered with --set cluster.signal_seconds={shorter}" if shorter >= 60 else ""


def jobs_of(config: RunConfig, seconds: float) -> int:
    """Number of consecutive jobs for this many seconds of work; only work until the signal is kept."""
    return max(1, ceil(seconds / max(1, _usable(config))))


def steps_of_a_job(config: RunConfig, seconds: float, per_step: float) -> int | None:
    """Steps after which a job of `cluster.time` ends; None if the whole run of so many seconds fits into one."""
    return int(_usable(config) // per_step) if seconds > _usable(config) else None


def _usable(config: RunConfig) -> int:
    """Seconds of a job before its signal."""
    return seconds_of(config.cluster.time) - config.cluster.signal_seconds


def deadline_warnings(config: RunConfig, per_step: float, hours: float | None, save_steps: int) -> Iterator[str]:
    """What does not finish within `cluster.time`, and what to set.

    Args:
        per_step: seconds of an optimizer step.
        hours: of the whole run; None if its steps are not set.
    """
    usable, stated = _usable(config), config.cluster.time
    if per_step > usable:
        needed = _written(2 * per_step + config.cluster.signal_seconds)
        yield (
            f"cluster.time: one step takes {_duration(per_step)}, and a job of {stated} ends before it: no step is "
            f"ever done; --set cluster.time={needed}, or plan for a shorter step"
        )
    elif save_steps * per_step > usable:
        fewer = max(1, int(usable // per_step))
        yield (
            f"grpo.save_steps: {save_steps} steps take {_duration(save_steps * per_step)}, and a job of {stated} ends "
            f"before: only what is saved at its signal is kept; --set grpo.save_steps={fewer}"
        )
    if per_step <= usable and hours is not None and 3600 * hours > usable:
        jobs, enough = jobs_of(config, 3600 * hours), _written(3600 * hours * 1.1 + config.cluster.signal_seconds)
        yield (
            f"cluster.time: the run takes {_duration(3600 * hours)}, a job of {stated} ends before: "
            f"{_requeued(config, jobs)}; --set cluster.time={enough} runs it in one"
        )


def _requeued(config: RunConfig, jobs: int) -> str:
    most = config.cluster.max_requeues + 1
    if jobs <= most:
        return f"it is continued in {jobs} jobs, one after the other"
    return f"it needs {jobs} jobs, and cluster.max_requeues allows {most}"


def _duration(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.1f} days"


def _written(seconds: float) -> str:
    """Whole hours in Slurm's format, or minutes if they are fewer than 60."""
    if seconds < 3600:
        return f"00:{ceil(seconds / 60):02}:00"
    days, hours = divmod(ceil(seconds / 3600), 24)
    return f"{days}-{hours:02}:00:00" if days else f"{hours:02}:00:00"
