"""What a plan depends on besides the configuration: the model's shape, the hardware, and how long texts may be; and the
memory that one GPU of each role needs.

How long texts may be is decided once for training, engines and the filtering of prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from grpo_dist.config import RunConfig
from grpo_dist.config.base import EMBEDDED
from grpo_dist.config.cluster import ClusterSection
from grpo_dist.config.yaml_source import shown, visible
from grpo_dist.errors import PlanError
from grpo_dist.plan.batch import Alternative, PlanRefusal
from grpo_dist.plan.memory import (
    AttentionName,
    Lora,
    MemoryBreakdown,
    RolloutSetup,
    Sharding,
    TrainerSetup,
    colocated_memory,
    max_concurrency,
    minimum_utilization,
    rollout_memory,
    trainer_memory,
)
from grpo_dist.plan.memory.vllm import served_loras
from grpo_dist.plan.specs import Architecture, Quantization, architecture_of, bitsandbytes
from grpo_dist.plan.specs.hardware import GPUS, Gpu, Link, UnknownHardware, gpu, link
from grpo_dist.plan.time import DEFAULTS, Assumption, Efficiencies, Lengths

LONGEST_PROMPT = 512
"""Tokens of the longest prompt if no setting bounds it; the recipe's are 202."""


class Texts(NamedTuple):
    """Tokens."""

    prompt: int
    """Longest prompt."""
    prompt_source: str
    completion: int
    """Longest completion that is trained on."""
    engine: int
    """Context length of an engine: vLLM's `max_model_len`."""

    @property
    def assumed(self) -> bool:
        """No setting bounds a prompt."""
        return self.prompt_source.startswith("assumed")


def longest_completion(config: RunConfig) -> int:
    """Longest completion of training and comparison."""
    judged = (config.evaluation.max_completion_length or 0) if config.evaluation.enabled else 0
    return max(config.grpo.max_completion_length, judged)


def texts(config: RunConfig, positions: int | None) -> Texts:
    """As configured, or assumed if nothing is set.

    Args:
        positions: `max_position_embeddings` of the model; None if unknown.
    """
    longest, context = longest_completion(config), config.model.max_length
    prompt, source = _longest_prompt(config, longest, positions)
    engine = prompt + longest if context is None else context
    return Texts(prompt, source, config.grpo.max_completion_length, engine)


def _longest_prompt(config: RunConfig, completion: int, positions: int | None) -> tuple[int, str]:
    context, stated = config.model.max_length, config.data.max_prompt_length
    left = None if context is None else max(1, context - completion)
    if stated is not None:
        return (stated if left is None else min(stated, left)), "data.max_prompt_length"
    if left is not None:
        return left, "model.max_length − the longest completion"
    if positions is not None and positions - completion <= LONGEST_PROMPT:
        return max(1, positions - completion), "the model's positions − the longest completion"
    return LONGEST_PROMPT, "assumed: no setting bounds a prompt; set data.max_prompt_length"


Found = TypeVar("Found")

USUAL = {"cluster.intra_node_link": (None,), "cluster.inter_node_link": ("infiniband-ndr",)}
"""Replacements for an unknown name: the GPU's own link, the usual one between nodes."""
MEAN_SHARE = 0.5
"""Mean over longest, of prompts and of completions, before a run has been measured."""


@dataclass(frozen=True)
class Measured:
    """Measurements of an earlier run."""

    efficiencies: Efficiencies
    mean_completion: float
    longest_completion: float | None
    """None: the limit."""
    source: str
    longest_prompt: float | None = None
    """None: unknown."""


def stated_mean(tokens: int) -> Measured:
    """Only a mean length, known to the user."""
    return Measured(DEFAULTS, float(tokens), None, "stated with --mean-completion")


@dataclass(frozen=True)
class PlanInputs:
    """Everything that is looked up once per plan."""

    config: RunConfig
    architecture: Architecture | None
    unknown: str | None
    """Why the architecture is unknown, and what to type."""
    gpu: Gpu
    intra: Link
    inter: Link
    texts: Texts
    measured: Measured | None

    @property
    def assumes_prompts(self) -> bool:
        """No setting bounds the prompts of data that is not embedded."""
        return self.texts.assumed and self.config.data.name_or_path != EMBEDDED

    @property
    def prompt_tokens(self) -> int:
        """Longest prompt."""
        return self.texts.prompt

    @property
    def completion_tokens(self) -> int:
        """Longest completion."""
        return self.texts.completion

    @property
    def efficiencies(self) -> Efficiencies:
        return self.measured.efficiencies if self.measured else DEFAULTS

    @property
    def lengths(self) -> Lengths:
        """Lengths of the texts of a step, for the time estimate."""
        limit, longest_prompt = self.completion_tokens, float(self.prompt_tokens)
        if self.measured is not None and self.measured.longest_prompt is not None:
            longest_prompt = min(longest_prompt, max(1.0, self.measured.longest_prompt))
        prompt = max(1.0, MEAN_SHARE * longest_prompt)
        if self.measured is None:
            return Lengths(prompt, max(1.0, MEAN_SHARE * limit), limit, longest_prompt)
        longest = min(limit, max(1.0, self.measured.longest_completion or limit))
        mean = min(longest, max(1.0, self.measured.mean_completion))
        return Lengths(prompt, mean, longest, longest_prompt)

    @property
    def comparison_lengths(self) -> Lengths:
        """Lengths of the texts of the comparison; its completions may be longer or shorter than those of training."""
        trained, limit = self.lengths, self.config.evaluation.max_completion_length
        if limit is None:
            return trained
        mean = MEAN_SHARE * limit if self.measured is None else min(trained.mean, limit)
        return Lengths(trained.prompt, max(1.0, mean), max(1.0, limit), trained.longest_prompt)

    def assumptions(self) -> tuple[Assumption, ...]:
        """The lengths, and where they come from."""
        lengths, half = self.lengths, f"{MEAN_SHARE:g} × the longest, no data read"
        completion = f"{MEAN_SHARE:g} × grpo.max_completion_length; --calibrate RUN takes a run's own"
        longest = "grpo.max_completion_length: one completion of a step usually reaches it"
        if self.measured is not None:
            completion = self.measured.source
            longest = longest if self.measured.longest_completion is None else self.measured.source
        return (
            Assumption("prompt tokens, longest", self.prompt_tokens, self.texts.prompt_source),
            Assumption("prompt tokens, mean", lengths.prompt, half),
            Assumption("completion tokens, mean", lengths.mean, completion),
            Assumption("completion tokens, longest of a step", lengths.longest, longest),
        )


def basis_of(config: RunConfig, measured: Measured | None = None) -> PlanInputs:
    """Look up what the configuration names: files of the model, no network.

    Raises:
        PlanError: a GPU or link of that name is not known, or texts are longer than the model's positions.
    """
    architecture, unknown = _architecture(config)
    if architecture is not None:
        _check_positions(config, architecture.max_position_embeddings)
    hardware, intra, inter = _hardware(config.cluster)
    return PlanInputs(
        config=config,
        architecture=architecture,
        unknown=unknown,
        gpu=hardware,
        intra=intra,
        inter=inter,
        texts=texts(config, None if architecture is None else architecture.max_position_embeddings),
        measured=measured,
    )


def _architecture(config: RunConfig) -> tuple[Architecture | None, str | None]:
    try:
        return architecture_of(config.model.name_or_path, config.model.revision), None
    except PlanError as error:
        what = (error.hint or "").partition("Known by name")[0].rstrip(". ")
        return None, visible(f"{error.message}; memory and time are not estimated: {what}")
    except (OSError, RuntimeError):
        # pathlib's errors for a name that cannot be a path: too long, or of an unknown user.
        name = visible(shown(config.model.name_or_path))
        return None, f"model.name_or_path: {name} cannot be looked up; memory and time are not estimated"


def _hardware(cluster: ClusterSection) -> tuple[Gpu, Link, Link]:
    """The GPU, the link inside a node, the link between nodes."""
    figures = cluster.gpu_overrides.model_dump(exclude_none=True)
    hardware = GPUS["cpu"]
    if cluster.gpus_per_node:
        hardware = _named("cluster.gpu", gpu, cluster.gpu, figures)
    intra = _named("cluster.intra_node_link", link, cluster.intra_node_link or hardware.link)
    return hardware, intra, _named("cluster.inter_node_link", link, cluster.inter_node_link)


def _named(setting: str, find: Callable[..., Found], *stated: object) -> Found:
    """The entry of the planner's table, or an error with the setting that names it."""
    try:
        return find(*stated)
    except PlanError as error:
        meant = error.near if isinstance(error, UnknownHardware) else None
        values = (*(() if meant is None else (meant,)), *USUAL.get(setting, ()))
        near = tuple(Alternative({setting: value}) for value in values)
        also = error.otherwise if isinstance(error, UnknownHardware) else ""
        raise PlanRefusal(f"{setting}: {error.message}", near, otherwise=error.hint, also=also) from None


def _check_positions(config: RunConfig, positions: int) -> None:
    completion, prompt = config.grpo.max_completion_length, config.data.max_prompt_length or 1
    for setting, tokens, fix in _wanted_lengths(config, completion, prompt, positions):
        if tokens > positions:
            raise PlanRefusal(
                f"{setting}: {tokens:,} tokens, but {config.model.name_or_path} has {positions:,} positions "
                f"(max_position_embeddings)",
                (fix,),
            )


def _wanted_lengths(
    config: RunConfig, completion: int, prompt: int, positions: int
) -> Iterator[tuple[str, int, Alternative]]:
    longest = positions - prompt
    if longest > 0:
        fix = Alternative({"grpo.max_completion_length": longest})
    elif positions > completion:
        fix = Alternative({"data.max_prompt_length": positions - completion})
    else:
        half = positions // 2
        fix = Alternative({"data.max_prompt_length": half, "grpo.max_completion_length": positions - half})
    stated = f"data.max_prompt_length {prompt:,}" if prompt > 1 else "a prompt"
    yield f"{stated} + grpo.max_completion_length {completion:,}", prompt + completion, fix
    if config.model.max_length is not None:
        yield "model.max_length", config.model.max_length, Alternative({"model.max_length": positions})
    compared = config.evaluation.max_completion_length
    if compared is not None and config.evaluation.enabled:
        fix = Alternative({"evaluation.max_completion_length": max(1, longest)})
        yield "a prompt + evaluation.max_completion_length", prompt + compared, fix


SERVER_UTILIZATION = 0.9
"""vLLM's own default; a server has its GPUs to itself."""
MOST_UTILIZATION = 0.9
"""Of a colocated engine."""
NO_GAIN = 1.005
"""Relative to the fewest seconds of generation: an engine within this factor may be smaller and leave memory free."""
MOST_SEQUENCES = 1024
"""Most sequences a colocated engine runs at a time; vLLM refuses more than `max_num_batched_tokens`."""
COLOCATED = {"max_num_batched_tokens": 4096, "max_loras": 1}
"""How TRL starts an engine in a training process, with the adapters it serves at a time."""


@dataclass(frozen=True)
class GpuMemory:
    """A training GPU: its training process, and the vLLM engine beside it if colocated."""

    trainer: TrainerSetup
    engine: RolloutSetup | None = None
    sleep: bool = False
    """Whether the engine releases its memory while the model trains."""

    def memory(self, micro_batch: int | None = None, utilization: float | None = None) -> MemoryBreakdown:
        """With other sizes than its own, if given."""
        trainer = self.trainer if micro_batch is None else replace(self.trainer, micro_batch=micro_batch)
        if self.engine is None:
            return trainer_memory(trainer)
        engine = self.engine if utilization is None else replace(self.engine, gpu_memory_utilization=utilization)
        return colocated_memory(trainer_memory(trainer), rollout_memory(engine), sleep=self.sleep)

    def least(self) -> GpuMemory:
        """With the smallest micro-batch, and an engine that holds one sequence at a time."""
        engine = None if self.engine is None else with_concurrency(self.engine, 1)
        return replace(self, trainer=replace(self.trainer, micro_batch=1), engine=engine)


def with_concurrency(engine: RolloutSetup, sequences: int) -> RolloutSetup:
    """With the smallest share of the GPU that holds this many sequences, at most the whole GPU."""
    return replace(engine, gpu_memory_utilization=min(1.0, minimum_utilization(engine, sequences)))


def fits(basis: PlanInputs, demand: GpuMemory) -> bool:
    """On a GPU of the plan."""
    return demand.memory().fits(int(basis.gpu.memory))


def largest(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number in low…high that satisfies a monotone condition; low − 1 if none does."""
    low -= 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def trainer_setup(basis: PlanInputs, architecture: Architecture, processes: int, per_process: int) -> TrainerSetup:
    """A training process with a micro-batch of one."""
    config = basis.config
    return TrainerSetup(
        architecture=architecture,
        micro_batch=1,
        prompt_tokens=basis.prompt_tokens,
        completion_tokens=basis.completion_tokens,
        dtype=config.model.dtype,
        quantization=quantization_of(config, architecture),
        lora=lora_of(config),
        optim=config.grpo.optim,
        sharding=Sharding(config.distributed.strategy, processes),
        gradient_checkpointing=config.grpo.gradient_checkpointing,
        attention=_attention(config.model.attn_implementation),
        reference_model=config.grpo.beta > 0,
        generation_batch=0 if config.rollout.uses_vllm else per_process,
    )


def engine_setup(basis: PlanInputs, architecture: Architecture, tensor_parallel_size: int, share: int) -> RolloutSetup:
    """A vLLM replica at the configured utilization, or a server's default.

    Args:
        share: completions of a training process in a step: a colocated engine runs at most those of its processes.
    """
    config, stated = basis.config, basis.config.rollout.gpu_memory_utilization
    colocated = config.rollout.colocated
    how = {"max_loras": served_loras(config.rollout.max_staleness)}
    if colocated:
        how = {**COLOCATED, "max_num_seqs": min(MOST_SEQUENCES, max(1, share) * tensor_parallel_size)}
    return RolloutSetup(
        architecture=architecture,
        gpu_bytes=int(basis.gpu.memory),
        max_model_len=basis.texts.engine,
        gpu_memory_utilization=SERVER_UTILIZATION if stated == "auto" else stated,
        tensor_parallel_size=tensor_parallel_size,
        dtype=config.model.dtype,
        max_lora_rank=config.lora.r if config.rollout.syncs_adapter else 0,
        **how,
    )


def engine_utilization(demand: GpuMemory, micro_batch: int, seconds: Callable[[RolloutSetup], float]) -> float:
    """The share of a training GPU for a colocated engine beside this micro-batch, in hundredths: of what is free, as
    much as makes generation faster.

    Args:
        seconds: seconds of generation with such an engine.
    """
    engine, gpu_bytes = demand.engine, demand.engine.gpu_bytes

    def with_share(hundredths: int) -> RolloutSetup:
        return replace(engine, gpu_memory_utilization=hundredths / 100)

    low = round(100 * engine.gpu_memory_utilization)
    useful = min(MOST_UTILIZATION, minimum_utilization(engine, engine.max_num_seqs))
    most = largest(lambda u: demand.memory(micro_batch, u / 100).fits(gpu_bytes), low, max(low, round(100 * useful)))
    enough = NO_GAIN * seconds(with_share(most))
    return (1 + largest(lambda u: seconds(with_share(u)) > enough, low, most - 1)) / 100


def group_fits(engine: RolloutSetup, group: int) -> bool:
    """Whether the KV cache holds a whole group at full length, or as many as vLLM runs at a time."""
    return max_concurrency(engine) >= min(group, engine.max_num_seqs)


def lora_of(config: RunConfig) -> Lora:
    return Lora(config.lora.r, config.lora.target_modules)


def quantization_of(config: RunConfig, architecture: Architecture) -> Quantization | None:
    """Quantisation of the weights for training: as stored, or as loaded."""
    arguments = config.model.model_init_kwargs
    return architecture.quantization or bitsandbytes(arguments.get("quantization_config") or arguments)


def servable_sizes(architecture: Architecture, gpus: int) -> list[int]:
    """Sizes vLLM takes on a node of so many GPUs: query heads and the MLP are split evenly, key-value heads are split
    or repeated evenly (`vllm/model_executor/layers/linear.py`, `ModelConfig.verify_with_parallel_config`)."""
    heads, keys, mlp = (
        architecture.num_attention_heads,
        architecture.num_key_value_heads,
        architecture.intermediate_size,
    )
    return [
        size
        for size in range(1, min(gpus, heads) + 1)
        if heads % size == 0 and mlp % size == 0 and (keys % size == 0 or size % keys == 0)
    ]


def _attention(name: str | None) -> AttentionName:
    """Kernels as the memory formulas distinguish them; an unnamed kernel keeps as little as FlashAttention."""
    if name is None or name == "sdpa":
        return "sdpa"
    return "eager" if name == "eager" else "flash_attention_2"
