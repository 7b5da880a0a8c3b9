"""Everything derived from a configuration before a process is started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from grpo_dist.config import RunConfig
from grpo_dist.masking import plain_secrets
from grpo_dist.plan.batch import BatchPlan, PlanRefusal, aligned_save_steps, plan_batch
from grpo_dist.plan.checks import corrects_sampling, deadline_warnings, refuse_contradictions, refuse_launch
from grpo_dist.plan.choose import Chosen, choose, tensor_parallel_size
from grpo_dist.plan.comparison import ComparisonPlan, plan_comparison
from grpo_dist.plan.effective_sample import rounding_warnings
from grpo_dist.plan.fit import Fit, estimate, time_as_json
from grpo_dist.plan.inputs import Measured, PlanInputs, basis_of, quantization_of
from grpo_dist.plan.memory import MemoryBreakdown, rollout_memory
from grpo_dist.plan.topology import Replica, Topology, machines_of, topology
from grpo_dist.run.directory import RunDirectory, damaged, read_json


@dataclass(frozen=True)
class LaunchPlan:
    """What will run, where, and in what sizes; `plan.json` of a run directory."""

    topology: Topology
    batch: BatchPlan
    strategy: str
    """How training processes share the model: ddp, zero1, zero2, zero3 or fsdp2."""
    max_steps: int | None
    save_steps: int
    backend: str
    gpu_memory_utilization: float | None
    """vLLM's share of a generating GPU; None without vLLM, or if the model is unknown and none is set."""
    memory: dict[str, Any] | None
    """Bytes of one GPU, by role and component; None when the model's shape is not known."""
    time: dict[str, Any] | None
    """Seconds of a step by part, GPU-hours, and every assumption; None when the model's shape is not known."""
    warnings: tuple[str, ...]
    max_prompt_length: int | None = None
    """Tokens of the longest prompt the plan allows for."""
    max_model_len: int | None = None
    """Context length of an engine, in tokens; None without vLLM, or if the model is unknown and no setting bounds a
    prompt: vLLM then uses the model's positions."""

    @property
    def uses_vllm(self) -> bool:
        return self.backend == "vllm"

    @property
    def distributed_type(self) -> str:
        """Accelerate's name: NO, MULTI_CPU, MULTI_GPU, DEEPSPEED or FSDP."""
        if self.strategy.startswith("zero"):
            return "DEEPSPEED"
        if self.strategy == "fsdp2":
            return "FSDP"
        if self.topology.num_processes == 1:
            return "NO"
        return "MULTI_CPU" if self.topology.on_cpu else "MULTI_GPU"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "distributed_type": self.distributed_type}

    def to_json(self) -> str:
        """Deterministic text."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> LaunchPlan:
        """The plan `to_json` wrote."""
        fields = json.loads(text)
        del fields["distributed_type"]
        fields["topology"] = _topology(fields["topology"])
        fields["batch"] = BatchPlan(**fields["batch"])
        fields["warnings"] = tuple(fields["warnings"])
        return cls(**fields)


def plan_run(config: RunConfig, measured: Measured | None = None) -> LaunchPlan:
    """Derive the launch from the configuration: no torch, no network, and nothing read from this machine but the
    model's `config.json` in a local directory or the Hub cache.

    Args:
        measured: measurements of an earlier run.

    Raises:
        PlanError: the configured quantities cannot run together.
    """
    try:
        return plan_without_hint(config, measured)
    except PlanRefusal as refused:
        raise refused.find_hint(config, plan_without_hint) from None


def plan_without_hint(config: RunConfig, measured: Measured | None = None) -> LaunchPlan:
    """As `plan_run`, but a refusal's hint is not searched for."""
    basis = basis_of(config, measured)
    refuse_contradictions(basis)
    machines = machines_of(config, tensor_parallel_size(basis))
    choice = choose(basis, machines)
    where = topology(machines, choice.split, choice.reason)
    batch = _batch(config, where, choice.fitted)
    refuse_launch(config, where, batch)
    save_steps = aligned_save_steps(config.grpo.save_steps, config.grpo.num_iterations)
    compared = _comparison(basis, choice, where)
    time = _time(basis, choice, compared)
    return LaunchPlan(
        topology=where,
        batch=batch,
        strategy=config.distributed.strategy,
        max_steps=config.grpo.max_steps if config.grpo.max_steps > 0 else None,
        save_steps=save_steps,
        backend=config.rollout.backend,
        gpu_memory_utilization=_utilization(config, choice.fitted),
        memory=_rounded(_memory(basis, choice.fitted, compared)),
        time=_rounded(time),
        warnings=(*_warnings(basis, choice, where, batch, save_steps), *_of_time(config, time, save_steps)),
        max_prompt_length=None if _open_ended(basis) else basis.texts.prompt,
        max_model_len=None if _open_ended(basis) or not config.rollout.uses_vllm else basis.texts.engine,
    )


def _topology(fields: dict[str, Any]) -> Topology:
    replicas = tuple(Replica(replica["node"], tuple(replica["gpus"])) for replica in fields["replicas"])
    return Topology(**{**fields, "trainer_gpus": tuple(fields["trainer_gpus"]), "replicas": replicas})


def _batch(config: RunConfig, where: Topology, fitted: Fit | None) -> BatchPlan:
    return plan_batch(
        prompts_per_step=config.grpo.prompts_per_step,
        num_generations=config.grpo.num_generations,
        num_processes=where.num_processes,
        max_per_device_train_batch_size=fitted.micro_batch if fitted else _limit(config),
    )


def _open_ended(basis: PlanInputs) -> bool:
    """Neither the model nor the configuration says how long a prompt may be."""
    return basis.architecture is None and basis.texts.assumed


def _utilization(config: RunConfig, fitted: Fit | None) -> float | None:
    if fitted is not None and fitted.engine is not None:
        return fitted.engine.gpu_memory_utilization
    stated = config.rollout.gpu_memory_utilization
    return None if stated == "auto" else stated


def _comparison(basis: PlanInputs, choice: Chosen, where: Topology) -> ComparisonPlan | None:
    if basis.architecture is None or choice.fitted is None:
        return None
    return plan_comparison(basis, basis.architecture, choice.split, choice.fitted, where)


def _memory(basis: PlanInputs, fitted: Fit | None, compared: ComparisonPlan | None) -> dict[str, Any] | None:
    if fitted is None:
        return None
    room = int(basis.gpu.memory) if basis.config.cluster.gpus_per_node else None

    def with_headroom(role: MemoryBreakdown) -> dict[str, Any]:
        return {**role.to_dict(), "headroom_bytes": None if room is None else room - role.total}

    roles = {role.role: with_headroom(role) for role in fitted.roles}
    lengths = basis.assumptions()[0]
    assumed = [
        {"name": lengths.name, "value": lengths.value, "source": lengths.source},
        {
            "name": "completion tokens, longest",
            "value": basis.completion_tokens,
            "source": "grpo.max_completion_length",
        },
    ]
    answering = None if compared is None or compared.memory is None else with_headroom(compared.memory)
    return {
        "gpu": basis.gpu.name,
        "gpu_bytes": room,
        "roles": roles,
        "comparison": answering,
        "host_bytes_per_node": _asleep(basis, fitted),
        "assumptions": assumed,
    }


def _asleep(basis: PlanInputs, fitted: Fit) -> int:
    """Bytes of weights that the sleeping engines of a node keep in host memory."""
    if fitted.engine is None or not basis.config.rollout.enable_sleep_mode:
        return 0
    weights = next(part.bytes for part in rollout_memory(fitted.engine).components if part.name == "weights")
    return basis.config.cluster.gpus_per_node * weights


def _time(basis: PlanInputs, choice: Chosen, compared: ComparisonPlan | None) -> dict[str, Any] | None:
    config = basis.config
    unknown = not config.cluster.gpus_per_node and config.rollout.uses_vllm
    if basis.architecture is None or choice.fitted is None or unknown:
        return None
    comparison = compared and compared.to_dict(config.cluster.nodes * config.cluster.gpus_per_node)
    return time_as_json(basis, estimate(basis, basis.architecture, choice.split, choice.fitted), comparison)


def _rounded(value: Any) -> Any:
    """Floats rounded to nine digits: the last digits of a sum vary between Python versions, plan.json must not."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list | tuple) else value


def _warnings(basis: PlanInputs, choice: Chosen, where: Topology, batch: BatchPlan, save_steps: int) -> Iterator[str]:
    config = basis.config
    if config.grpo.loss_type == "bnpo" and batch.num_processes * batch.gradient_accumulation_steps > 1:
        yield (
            "grpo.loss_type: bnpo is normalised over each micro-batch by itself, so that a step depends on the number "
            "of processes; dapo is the same step on any"
        )
    if basis.unknown is not None:
        yield basis.unknown
    elif basis.assumes_prompts and not where.on_cpu:
        fate = "are left out" if config.rollout.uses_vllm else "may not fit"
        yield (
            f"data.max_prompt_length is not set: memory and time are planned for prompts of up to "
            f"{basis.prompt_tokens} tokens, and longer ones {fate}"
        )
    if config.model.requires_unsloth:
        yield "model.backend: memory and time are those of TRL with PEFT; Unsloth takes less of both on a GPU"
    if basis.architecture is not None and (kind := quantization_of(config, basis.architecture)):
        yield f"model: {kind} weights are timed as whole ones; bitsandbytes, which unpacks them in each pass, is slower"
    if where.on_cpu and config.rollout.uses_vllm:
        yield "rollout: memory and time of vLLM on CPU are not estimated"
    if where.idle_gpus:
        are = "is" if where.idle_gpus == 1 else "are"
        yield f"{where.idle_gpus} of {where.nodes * where.gpus_per_node} GPUs {are} used by nothing"
    if save_steps != config.grpo.save_steps:
        yield (
            f"grpo.save_steps: {config.grpo.save_steps} falls inside a generation window of "
            f"{config.grpo.num_iterations} optimizer steps; checkpoints are saved every {save_steps}"
        )
    yield from _slow_batch(choice.fitted.most if choice.fitted else _limit(config), batch)
    if config.lora.lora_dropout > 0:
        yield "lora.lora_dropout: GRPO scores in train mode, so dropout distorts every policy ratio; set it to 0"
    yield from rounding_warnings(config)
    for name in plain_secrets(config.model_dump(mode="json")):
        yield (
            f"{name} looks like a secret, and config.yaml of the run will state it, for you alone to read; keep it in "
            "the environment instead: env:NAME"
        )
    if config.rollout.max_staleness and not corrects_sampling(config):
        yield (
            "grpo.vllm_importance_sampling_correction: off, so completions of older policies (rollout.max_staleness) "
            "count as if they were new; set it to true"
        )
    cut = [name for name, off in (("top_p", 1), ("top_k", 0), ("min_p", None)) if getattr(config.grpo, name) != off]
    if cut and corrects_sampling(config):
        yield (
            f"grpo.{', grpo.'.join(cut)}: truncated sampling biases TRL's importance-sampling correction for vLLM; "
            f"leave it out"
        )


def _of_time(config: RunConfig, time: dict[str, Any] | None, save_steps: int) -> Iterator[str]:
    if time is not None:
        yield from deadline_warnings(config, time["seconds_per_step"], time["run_hours"], save_steps)


def _limit(config: RunConfig) -> int:
    return config.distributed.max_per_device_train_batch_size


def _slow_batch(limit: int, batch: BatchPlan) -> Iterator[str]:
    per_process = batch.per_device_train_batch_size * batch.gradient_accumulation_steps
    if batch.per_device_train_batch_size * 2 <= min(limit, per_process):
        yield (
            f"{per_process} completions per process split only into micro-batches of "
            f"{batch.per_device_train_batch_size} below the limit of {limit}: "
            f"{batch.gradient_accumulation_steps} passes per step; a rounder grpo.prompts_per_step is faster"
        )


def read_plan(run: RunDirectory) -> LaunchPlan:
    """The plan of a run.

    Raises:
        RunDirectoryError: plan.json is missing or damaged; resuming the run writes it again.
    """
    way_out = f"grpo-dist run {run.config} --output {run.path} --resume writes it again"
    found = read_json(run.plan, way_out)
    try:
        return LaunchPlan.from_json(json.dumps(found))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged(run.plan, f"something is missing or of another kind ({error})", way_out) from error
