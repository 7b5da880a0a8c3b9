"""What a plan rests on beside the configuration: the model's shape, the hardware, and how long texts are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from grpo_dist.config import RunConfig
from grpo_dist.config.cluster import ClusterSection
from grpo_dist.config.problems import shown, visible
from grpo_dist.config.section import EMBEDDED
from grpo_dist.errors import PlanError
from grpo_dist.plan.architecture import Architecture, architecture_of
from grpo_dist.plan.hardware import GPUS, Gpu, Link, UnknownHardware, gpu, link
from grpo_dist.plan.refusal import Refused, Way
from grpo_dist.plan.texts import Texts, texts
from grpo_dist.plan.timing import DEFAULTS, Assumption, Efficiencies, Lengths

Found = TypeVar("Found")

USUAL = {"cluster.intra_node_link": (None,), "cluster.inter_node_link": ("infiniband-ndr",)}
"""What a name that is not known may be replaced with: the GPU's own link, the usual one between nodes."""
MEAN_SHARE = 0.5
"""Mean over longest, of prompts and of completions, before a run has been measured."""


@dataclass(frozen=True)
class Measured:
    """What an earlier run tells about the next."""

    efficiencies: Efficiencies
    mean_completion: float
    longest_completion: float | None
    """None: the limit."""
    source: str
    longest_prompt: float | None = None
    """None: not known."""


def stated_mean(tokens: int) -> Measured:
    """Nothing measured but a mean length that the user knows."""
    return Measured(DEFAULTS, float(tokens), None, "stated with --mean-completion")


@dataclass(frozen=True)
class Basis:
    """Everything looked up once for a plan."""

    config: RunConfig
    architecture: Architecture | None
    unknown: str | None
    """Why the architecture is not known, and what to type."""
    gpu: Gpu
    intra: Link
    inter: Link
    texts: Texts
    measured: Measured | None

    @property
    def assumes_prompts(self) -> bool:
        """Nothing stated bounds the prompts of data not our own."""
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
        """Of the texts of a step, for the time estimate."""
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
        """Of the texts of the comparison; its completions may be longer or shorter than those of training."""
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


def basis_of(config: RunConfig, measured: Measured | None = None) -> Basis:
    """Look up what the configuration names: files of the model, no network.

    Raises:
        PlanError: a GPU or link of that name is not known, or texts are longer than the model's positions.
    """
    architecture, unknown = _architecture(config)
    if architecture is not None:
        _check_positions(config, architecture.max_position_embeddings)
    hardware, intra, inter = _hardware(config.cluster)
    return Basis(
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
        # What pathlib makes of a name that cannot be a path: too long, or of a user there is not.
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
    """What is found in the planner's table, or why not, with the setting that names it."""
    try:
        return find(*stated)
    except PlanError as error:
        meant = error.near if isinstance(error, UnknownHardware) else None
        values = (*(() if meant is None else (meant,)), *USUAL.get(setting, ()))
        near = tuple(Way({setting: value}) for value in values)
        also = error.otherwise if isinstance(error, UnknownHardware) else ""
        raise Refused(f"{setting}: {error.message}", near, otherwise=error.hint, also=also) from None


def _check_positions(config: RunConfig, positions: int) -> None:
    completion, prompt = config.grpo.max_completion_length, config.data.max_prompt_length or 1
    for setting, tokens, fix in _wanted_lengths(config, completion, prompt, positions):
        if tokens > positions:
            raise Refused(
                f"{setting}: {tokens:,} tokens, but {config.model.name_or_path} has {positions:,} positions "
                f"(max_position_embeddings)",
                (fix,),
            )


def _wanted_lengths(config: RunConfig, completion: int, prompt: int, positions: int) -> Iterator[tuple[str, int, Way]]:
    longest = positions - prompt
    if longest > 0:
        fix = Way({"grpo.max_completion_length": longest})
    elif positions > completion:
        fix = Way({"data.max_prompt_length": positions - completion})
    else:
        half = positions // 2
        fix = Way({"data.max_prompt_length": half, "grpo.max_completion_length": positions - half})
    stated = f"data.max_prompt_length {prompt:,}" if prompt > 1 else "a prompt"
    yield f"{stated} + grpo.max_completion_length {completion:,}", prompt + completion, fix
    if config.model.max_length is not None:
        yield "model.max_length", config.model.max_length, Way({"model.max_length": positions})
    compared = config.evaluation.max_completion_length
    if compared is not None and config.evaluation.enabled:
        fix = Way({"evaluation.max_completion_length": max(1, longest)})
        yield "a prompt + evaluation.max_completion_length", prompt + compared, fix
