"""A cluster's configuration scaled down to one machine: what changes, why, and what remains untested."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from grpo_dist.config import RunConfig
from grpo_dist.config.base import EMBEDDED
from grpo_dist.errors import PlanError
from grpo_dist.masking import masked
from grpo_dist.plan.checks import extra, obstacle
from grpo_dist.plan.launch import LaunchPlan, plan_run
from grpo_dist.plan.specs import Architecture, architecture_of
from grpo_dist.plan.specs.hardware import gpu

STEPS = 3
PROMPTS, GROUP = 2, 4
TOKENS_ON_GPU, TOKENS_ON_CPU = 256, 64
"""Tokens of a completion."""
PROBLEMS, SAMPLES = 4, 2
"""Problems of the comparison."""
CPU_PARAMETERS = 1_000_000_000
"""Parameters; larger models take minutes per step on a CPU."""
RAM_SHARE = 0.25
"""Share of the machine's memory for float32 weights: loading a model takes as much again, and training more."""
OF_PYTORCH = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop")
"""Optimizers that need neither a GPU nor another package."""
ON_GPUS_ONLY = ("tf32", "use_liger_kernel", "liger_kernel_config", "use_transformers_continuous_batching")
"""Further fields of `GRPOConfig`."""


@dataclass(frozen=True)
class DebugMachine:
    """The machine to debug on."""

    gpu: str | None
    """The driver's name of the GPU; None: CPU."""
    memory: int
    """Bytes of that GPU, or of the machine."""
    bfloat16: bool = True
    vllm: bool = False
    """Whether vLLM is installed."""
    lacks_model: str | None = None
    """Why the model's weights are not available here; None if they are."""

    def __str__(self) -> str:
        return f"{self.gpu or 'CPU'}, {self.memory / 2**30:,.0f} GiB"


class Change(NamedTuple):
    """One changed setting."""

    setting: str
    before: Any
    after: Any
    """None if the setting is removed."""
    why: str


@dataclass(frozen=True)
class Debug:
    """The run to make instead."""

    config: RunConfig
    plan: LaunchPlan
    changes: tuple[Change, ...]
    remains: tuple[str, ...]
    """Differences from the cluster that remain untested."""
    small: bool
    """A small model with random weights replaces the configured one."""


class _Wish(NamedTuple):
    setting: str
    value: Any
    why: str


class _Trial(NamedTuple):
    """One way to debug the run here."""

    vllm: bool
    stands_in: str | None
    """Why a small model replaces the configured one."""


def small(architecture: Architecture) -> Architecture:
    """The smallest model of the same family with its vocabulary, its head size and, if it has them, grouped keys."""
    grouped = architecture.num_key_value_heads < architecture.num_attention_heads
    hidden = 2 * architecture.head_dim
    return replace(
        architecture,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1 if grouped else 2,
    )


def scaled_down(config: RunConfig, machine: DebugMachine, small_model: str) -> Debug:
    """The configuration for one process on this machine: same family, rewards, data and code, few and short.

    Args:
        small_model: directory for the small model, if one is needed.

    Raises:
        PlanError: the configuration cannot run on the cluster, or cannot be debugged here.
    """
    stated, refusal = plan_run(config), None
    for trial in _trials(config, machine):
        changes, debug = _applied(config, _wishes(config, stated, machine, trial, small_model))
        try:
            plan = plan_run(debug)
        except PlanError as error:
            refusal = refusal or error
            continue
        remains = tuple(_remains(config, stated, debug, plan, trial))
        return Debug(debug, plan, changes, remains, small=trial.stands_in is not None)
    if refusal is not None:
        raise refusal
    raise PlanError(
        f"model.name_or_path: {config.model.name_or_path} cannot be debugged here: {machine.lacks_model}; "
        f"and no small model stands in for a family that is not known",
        hint="grpo-dist prefetch CONFIG where there is a network, or --set model.name_or_path=PATH",
    )


def _trials(config: RunConfig, machine: DebugMachine) -> Iterator[_Trial]:
    """Ways to debug it, the nearest to the cluster first."""
    architecture, vllm = _architecture(config), config.rollout.uses_vllm and machine.vllm
    on_gpu, name = machine.gpu is not None, config.model.name_or_path
    too_large = None if on_gpu or architecture is None else _too_large(architecture, machine)
    obstacle = None if name == EMBEDDED else machine.lacks_model or too_large
    engines = (True, False) if vllm and on_gpu else (False,)
    if obstacle is None:
        yield from (_Trial(engine, None) for engine in engines)
        obstacle = f"it does not fit {machine.gpu}"
    if architecture is not None and name != EMBEDDED:
        yield from (_Trial(engine, obstacle) for engine in engines)


def _architecture(config: RunConfig) -> Architecture | None:
    try:
        return architecture_of(config.model.name_or_path, config.model.revision)
    except PlanError:
        return None


def _too_large(architecture: Architecture, machine: DebugMachine) -> str | None:
    count = architecture.parameters()
    if count > CPU_PARAMETERS:
        return f"{count / 1e9:.1f} billion parameters take minutes a step on a CPU"
    if 4 * count > RAM_SHARE * machine.memory:
        return f"{4 * count / 2**30:.1f} GiB of weights are too many for {machine}"
    return None


def _wishes(
    config: RunConfig, stated: LaunchPlan, machine: DebugMachine, trial: _Trial, small_model: str
) -> Iterator[_Wish]:
    yield from _model(config, machine, trial, small_model)
    yield from _backend(config, stated, machine)
    yield from _machines(config, machine)
    yield from _rollouts(config, machine, trial)
    yield from _steps(config, machine)
    yield from _optimizer(config, machine)
    yield from _comparison(config, _tokens(config, machine))
    yield _Wish("tracking", (), "a debug run is none of the project's experiments")


def _model(config: RunConfig, machine: DebugMachine, trial: _Trial, small_model: str) -> Iterator[_Wish]:
    if trial.stands_in is not None:
        yield _Wish(
            "model.name_or_path",
            small_model,
            f"a small model of its family stands in, random weights behind the real tokenizer: {trial.stands_in}",
        )
        yield _Wish("model.revision", None, "the small model has none")
        yield _Wish("model.adapter", None, "it fits the large model alone")
        yield _Wish("model.model_init_kwargs", {}, "they are the large model's")
        yield _Wish("rewards.preflight_samples", 0, "random weights have nothing to say")
    if machine.gpu is None:
        yield _Wish("model.dtype", "float32", "CPUs are slow in 16 bits")
        if (config.model.attn_implementation or "").startswith("flash"):
            yield _Wish("model.attn_implementation", None, "needs a GPU")
    elif config.model.dtype == "bfloat16" and not machine.bfloat16:
        yield _Wish("model.dtype", "float16", "this GPU has no bfloat16")


def _backend(config: RunConfig, stated: LaunchPlan, machine: DebugMachine) -> Iterator[_Wish]:
    """With `auto`, Unsloth would train a single process on a GPU."""
    on_the_cluster = obstacle(config, stated.topology)
    if config.model.backend == "auto" and on_the_cluster and machine.gpu is not None:
        yield _Wish("model.backend", "trl", f"as on the cluster: {on_the_cluster.what}")


def _machines(config: RunConfig, machine: DebugMachine) -> Iterator[_Wish]:
    here = f"this machine: {machine}"
    yield _Wish("cluster.nodes", 1, here)
    yield _Wish("cluster.gpus_per_node", 0 if machine.gpu is None else 1, here)
    if machine.gpu is not None:
        if _in_the_table(machine.gpu):
            yield _Wish("cluster.gpu", machine.gpu, here)
        yield _Wish("cluster.gpu_overrides.memory", float(machine.memory), here)
    yield _Wish("distributed.strategy", "ddp", "one process has nobody to share the model with")
    yield _Wish("distributed.num_processes", None, "one process")


def _in_the_table(name: str) -> bool:
    try:
        return bool(gpu(name))
    except PlanError:
        return False


def _rollouts(config: RunConfig, machine: DebugMachine, trial: _Trial) -> Iterator[_Wish]:
    rollout, one = config.rollout, "one machine, one process"
    if not rollout.uses_vllm:
        return
    if not trial.vllm:
        why = _without_vllm(machine)
        yield _Wish("rollout.backend", "transformers", why)
        yield _Wish("rollout.gpu_memory_utilization", "auto", why)
        yield _Wish("rollout.enable_sleep_mode", False, why)
    yield _Wish("rollout.mode", "colocate", "no GPUs for servers")
    yield _Wish("rollout.max_staleness", 0, "generation and training take turns")
    yield _Wish("rollout.replicas", "auto", one)
    yield _Wish("rollout.nodes", "auto", one)
    yield _Wish("rollout.tensor_parallel_size", "auto", one)


def _without_vllm(machine: DebugMachine) -> str:
    if machine.gpu is None:
        return "a debug run takes vLLM on a GPU only"
    return f"vLLM does not fit next to training on {machine}" if machine.vllm else "vLLM is not installed here"


def _steps(config: RunConfig, machine: DebugMachine) -> Iterator[_Wish]:
    grpo, longest, few = config.grpo, _tokens(config, machine), "a few are enough to go through everything"
    yield _Wish("grpo.max_steps", min(grpo.max_steps, STEPS) if grpo.max_steps > 0 else STEPS, few)
    yield _Wish("grpo.prompts_per_step", min(grpo.prompts_per_step, PROMPTS), few)
    yield _Wish("grpo.num_generations", min(grpo.num_generations, GROUP), few)
    if config.warm_start is not None:
        stated = config.warm_start.max_steps
        yield _Wish("warm_start.max_steps", min(stated, STEPS) if stated > 0 else STEPS, few)
    yield _Wish("grpo.logging_steps", 1, "every step is looked at")
    yield _Wish("grpo.max_completion_length", longest, "short, so that it takes minutes")
    for index, function in enumerate(config.rewards.functions):
        limit = function.kwargs.get("max_completion_length")
        if function.name == "soft_overlong_punishment" and isinstance(limit, int) and limit > longest:
            at, why = f"rewards.functions.{index}.kwargs", f"{function.name} ends where completions are cut, as before"
            yield _Wish(f"{at}.max_completion_length", longest, why)
            if isinstance(cache := function.kwargs.get("soft_punish_cache"), int):
                yield _Wish(f"{at}.soft_punish_cache", max(1, cache * longest // limit), why)


def _tokens(config: RunConfig, machine: DebugMachine) -> int:
    return min(config.grpo.max_completion_length, TOKENS_ON_CPU if machine.gpu is None else TOKENS_ON_GPU)


def _optimizer(config: RunConfig, machine: DebugMachine) -> Iterator[_Wish]:
    stated = {"grpo.optim": config.grpo.optim}
    if config.warm_start is not None:
        stated["warm_start.optim"] = config.warm_start.optim
    for setting, optim in stated.items():
        if machine.gpu is None and optim not in OF_PYTORCH:
            yield _Wish(setting, "adamw_torch", f"{optim} needs a GPU, or a package other than PyTorch")
        elif optim.endswith("layerwise"):
            yield _Wish(setting, optim.removesuffix("_layerwise"), "cannot accumulate gradients")
    for name in ON_GPUS_ONLY if machine.gpu is None else ():
        if extra(config, name):
            yield _Wish(f"grpo.{name}", None, "needs a GPU")


def _comparison(config: RunConfig, longest: int) -> Iterator[_Wish]:
    evaluation, few = config.evaluation, "enough to see that the comparison works"
    if not evaluation.enabled:
        return
    yield _Wish("evaluation.num_problems", min(evaluation.num_problems, PROBLEMS), few)
    yield _Wish("evaluation.num_samples", min(evaluation.num_samples, SAMPLES), few)
    yield _Wish("evaluation.batch_size", min(evaluation.batch_size, PROBLEMS * SAMPLES), few)
    if evaluation.max_completion_length is not None:
        yield _Wish("evaluation.max_completion_length", min(evaluation.max_completion_length, longest), few)


def _applied(config: RunConfig, wishes: Iterable[_Wish]) -> tuple[tuple[Change, ...], RunConfig]:
    """The configuration with the changes, and those that had an effect."""
    plain, changes = config.model_dump(), []
    for setting, value, why in wishes:
        *path, last = (int(key) if key.isdigit() else key for key in setting.split("."))
        section = plain
        for key in path:
            section = section[key]
        if section[last] == value:
            continue
        changes.append(Change(setting, masked(section[last], setting), value, why))
        if setting.removeprefix("grpo.") in ON_GPUS_ONLY:
            del section[last]
        else:
            section[last] = value
    return tuple(changes), RunConfig.model_validate(plain)


def _remains(config: RunConfig, stated: LaunchPlan, debug: RunConfig, plan: LaunchPlan, trial: _Trial) -> Iterator[str]:
    """What remains untested."""
    many = stated.topology.num_processes
    if many > 1:
        yield f"one training process, not {many}: gradients are not averaged, nothing goes over NCCL or gloo"
    if stated.strategy != plan.strategy:
        yield f"the model is not sharded: {stated.strategy} is not tried"
    if stated.backend != plan.backend:
        yield "Transformers generates, not vLLM: engines, sync of the adapter and the canary are not tried"
    elif len(stated.topology.replicas) > len(plan.topology.replicas):
        yield f"a colocated engine generates, not {len(stated.topology.replicas)} servers on GPUs of their own"
    if trial.stands_in is not None:
        yield "the weights are random: what the model writes, and what rewards make of it, is not the model's"
    if plan.topology.device != stated.topology.device:
        if config.model.backend == "auto" and not obstacle(config, stated.topology):
            yield "TRL and PEFT train, not Unsloth, which model.backend auto takes on a GPU where it is installed"
        yield "a CPU computes, in float32: nothing is seen of CUDA, of memory of a GPU, or of speed"
    before, now = config.grpo.max_completion_length, debug.grpo.max_completion_length
    if now < before:
        yield f"completions of up to {now:,} tokens, not {before:,}: memory and time of long ones are not seen"
    if stated.topology.nodes > 1:
        yield "Slurm, the network between nodes, time limit and requeueing: on the cluster, grpo-dist doctor CONFIG"
