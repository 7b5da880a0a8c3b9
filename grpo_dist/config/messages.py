"""Pydantic's errors → problems a user can fix, with suggestions for unknown settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from grpo_dist.config.base import LARGEST_INTEGER, Member, choices, describe, is_section, members
from grpo_dist.config.grpo import GrpoSection
from grpo_dist.config.sections import RunConfig
from grpo_dist.config.trl_fields import OWNED, PASSED_ON
from grpo_dist.config.yaml_source import MOST_PROBLEMS, ConfigProblem, DottedPath, Place, Source, dotted, shown
from grpo_dist.text import closest


def lookup(path: DottedPath, root: Any = RunConfig) -> tuple[DottedPath, Member]:
    """The path without parts unknown to the schema, and (annotation, constraints) of the setting there.

    Pydantic puts names such as `tuple[str, ...]` into a path to distinguish the members of a union; they are removed.
    """
    known: DottedPath = ()
    member: Member = (root, ())
    for key in path:
        inner = _inside(member[0], key)
        if inner is not None:
            known, member = (*known, key), inner
    return known, member


def section_at(path: DottedPath) -> Any | None:
    """The section class at a path, None when something else or nothing is there."""
    known, (annotation, _) = lookup(path)
    return _section(annotation) if known == path else None


def keys(section: Any) -> list[str]:
    """Every setting of a section, ours first."""
    return [*section.model_fields, *(PASSED_ON if section is GrpoSection else ())]


@cache
def all_settings() -> tuple[DottedPath, ...]:
    """The paths of all settings, sections included; a list's entries are entry 0."""
    return tuple(_below(RunConfig, ()))


def _below(section: Any, path: DottedPath) -> Iterator[DottedPath]:
    for key in keys(section):
        here: DottedPath = (*path, key)
        yield here
        for end in ((), (0,)):
            if inner := section_at((*here, *end)):
                yield from _below(inner, (*here, *end))


def _inside(annotation: Any, key: str | int) -> Member | None:
    """(annotation, constraints) of the value under a key or index, None if there can be none."""
    section = _section(annotation)
    if section and key in section.model_fields:
        found = section.model_fields[key]
        return found.annotation, tuple(found.metadata)
    if section is GrpoSection and key in PASSED_ON:
        return PASSED_ON[key], ()
    for kind, _ in members(annotation):
        if isinstance(key, int) and get_origin(kind) in (tuple, list):
            return get_args(kind)[0], ()
        if isinstance(key, str) and get_origin(kind) is dict and not section:
            return get_args(kind)[1], ()
    return None


def _section(annotation: Any) -> Any | None:
    return next((kind for kind, _ in members(annotation) if is_section(kind)), None)


ELSEWHERE = {
    # TRL's ScriptArguments and ModelConfig, PEFT, Unsloth, other trainers
    "model_name_or_path": "model.name_or_path",
    "model_name": "model.name_or_path",
    "model_id": "model.name_or_path",
    "model_revision": "model.revision",
    "torch_dtype": "model.dtype",
    "max_seq_length": "model.max_length",
    "load_in_16bit": "model.dtype",
    **dict.fromkeys(
        (
            "adapter_name_or_path",
            "adapter_path",
            "init_adapter",
            "lora_model_dir",
            "lora_path",
            "peft_model_path",
            "resume_from_adapter",
        ),
        "model.adapter",
    ),
    **dict.fromkeys(("max_hours", "max_minutes", "max_runtime", "max_seconds", "time_limit"), "grpo.max_time"),
    "lora_r": "lora.r",
    "lora_rank": "lora.r",
    "rank": "lora.r",
    "lora_target_modules": "lora.target_modules",
    "dataset": "data.name_or_path",
    "dataset_name": "data.name_or_path",
    "dataset_path": "data.name_or_path",
    "dataset_config": "data.config",
    "dataset_config_name": "data.config",
    "dataset_train_split": "data.split",
    "dataset_test_split": "data.eval_split",
    "test_split": "data.eval_split",
    "reward_funcs": "rewards.functions",
    "reward_functions": "rewards.functions",
    "lr": "grpo.learning_rate",
    "batch_size": "grpo.prompts_per_step",
    "train_batch_size": "grpo.prompts_per_step",
    "group_size": "grpo.num_generations",
    "epochs": "grpo.num_train_epochs",
    "num_epochs": "grpo.num_train_epochs",
    "warmup_ratio": "grpo.warmup_steps",
    "max_new_tokens": "grpo.max_completion_length",
    "max_tokens": "grpo.max_completion_length",
    "random_state": "grpo.seed",
    "scheduler": "grpo.lr_scheduler_type",
    "optimizer": "grpo.optim",
    "kl_coef": "grpo.beta",
    "clip_range": "grpo.epsilon",
    "num_nodes": "cluster.nodes",
    "num_gpus": "cluster.gpus_per_node",
    "gpus": "cluster.gpus_per_node",
    "n_gpus": "cluster.gpus_per_node",
    "world_size": "distributed.num_processes",
    "wandb": "tracking",
    "loggers": "tracking",
}
"""Names used elsewhere → the equivalent setting here."""

ONLY_ADAPTERS = "only adapters (LoRA) are trained, never all weights"
CALLBACKS = (
    "callbacks of yours are not called; remove it (a reward function sees each step's completions, metrics.jsonl "
    "grows by a line a step, and tracking sends them on)"
)
STORED = (
    "weights are loaded as they are stored; name a model that bitsandbytes has stored in 4 bit, or set "
    "model.model_init_kwargs={quantization_config: {load_in_4bit: true}}"
)
WITHOUT = {
    **dict.fromkeys(
        (
            "use_peft",
            "use_lora",
            "full_finetuning",
            "full_finetune",
            "full_fine_tuning",
            "full_fine_tune",
            "finetuning_type",
            "fine_tuning_type",
            "finetune_mode",
            "train_type",
            "training_type",
            "tuner_type",
        ),
        f"{ONLY_ADAPTERS}; remove it (for an adapter that learns more set lora.r)",
    ),
    "use_dora": "vLLM serves no DoRA adapters; remove it",
    "lora_bias": "vLLM serves adapters without biases; remove it",
    "bias": "vLLM serves adapters without biases; remove it",
    "modules_to_save": "vLLM serves adapters, not whole modules beside them; remove it",
    "trainable_token_indices": "vLLM serves adapters, not changed embeddings beside them; remove it",
    "rank_pattern": "vLLM serves adapters of one rank; set lora.r",
    "alpha_pattern": "vLLM serves adapters of one scale; set lora.lora_alpha",
    "logging_dir": OWNED["output_dir"],
    "overwrite_output_dir": OWNED["output_dir"],
    **dict.fromkeys(("load_in_4bit", "load_in_8bit", "quantization_config"), STORED),
    **dict.fromkeys(("callbacks", "trainer_callbacks"), CALLBACKS),
    "no_cuda": OWNED["use_cpu"],
    "evaluation_strategy": OWNED["eval_strategy"],
}
"""Names used elsewhere without an equivalent setting here → why, and what to do."""


def unknown_setting(path: DottedPath, *, search: bool = True) -> str:
    """`what is wrong; what to type` about a setting the schema does not know.

    Args:
        search: for a setting that may have been meant, which takes milliseconds.
    """
    name = str(path[-1])
    if path[:-1] == ("lora",) and name in ("enabled", "enable", "use", "type"):
        name = "use_lora"
    reason = OWNED["run_name"] if path == ("name",) else OWNED.get(name) or WITHOUT.get(name)
    if reason:
        return f"not a setting here: {reason}"
    if as_dots := _written_with_dots(path):
        return f"a dot in a name; write {as_dots}"
    meant = _meant(path[:-1], name) if search else []
    if meant:
        return f"unknown setting; did you mean {' or '.join(map(dotted, meant))}?"
    if section_at(path[:-1]) is GrpoSection:
        return "neither a setting of grpo-dist nor a field of TRL's GRPOConfig; check its spelling, or remove it"
    return f"unknown setting; {_listing(path[:-1])}"


def unknown_in(root: Any, path: DottedPath) -> str:
    """The same for a file that holds a single section."""
    known, (annotation, _) = lookup(path[:-1], root)
    section = next(kind for kind, _ in members(annotation) if is_section(kind))
    if near := closest(str(path[-1]), keys(section)):
        return f"unknown setting; did you mean {dotted((*known, near))}?"
    return f"unknown setting; {dotted(known) or 'this file'} has {', '.join(keys(section))}"


def _written_with_dots(path: DottedPath) -> str | None:
    """`grpo.seed: 1` in a file, as it must be written there."""
    parts = str(path[-1]).split(".")
    full = (*path[:-1], *parts)
    if len(parts) < 2 or lookup(full)[0] != full:
        return None
    return " and indented under it ".join(f"`{part}:`" for part in parts)


def _meant(parent: DottedPath, name: str) -> list[DottedPath]:
    """Settings that may have been meant, best first."""
    if name in ELSEWHERE:
        return [tuple(ELSEWHERE[name].split("."))]
    if same := _same_name(name):
        return same
    section = section_at(parent)
    if section and (near := closest(name, keys(section))):
        return [(*parent, near)]
    anywhere = closest(name, [str(path[-1]) for path in all_settings()], cutoff=0.8)
    return _same_name(anywhere) if anywhere else []


def _same_name(name: str) -> list[DottedPath]:
    """Settings of that very name; those of the warm start only if there are no others."""
    same = [path for path in all_settings() if path[-1] == name]
    return [path for path in same if path[0] != "warm_start"] or same


def _listing(parent: DottedPath) -> str:
    section = section_at(parent)
    names = keys(section) if section else []
    where = dotted(parent) or "a configuration"
    return f"{where} has {', '.join(names)}" if names else "check its spelling, or remove it"


EXAMPLES = {
    "model": "model: {name_or_path: Qwen/Qwen3-4B-Base}",
    "model.name_or_path": "name_or_path: Qwen/Qwen3-4B-Base",
    "data": "data: {name_or_path: open-r1/DAPO-Math-17k-Processed, config: en}",
    "data.name_or_path": "name_or_path: open-r1/DAPO-Math-17k-Processed",
    "warm_start.data": "data: {name_or_path: examples.jsonl}",
    "warm_start.data.name_or_path": "name_or_path: examples.jsonl",
    "rewards.functions.name": "name: notebook",
    "evaluation.scorer.name": "name: accuracy",
    "cluster.container.runtime": "runtime: pyxis",
    "cluster.container.image": "image: /images/grpo.sqsh",
}
"""Required setting → a line that sets it."""

ADAPTER: tuple[DottedPath, ...] = (("lora", "r"), ("lora", "lora_alpha"), ("lora", "target_modules"))
"""Settings without meaning when there is no adapter."""

FORMS = {"time": "time: 24:00:00", "max_time": "max_time: 02:00:00"}
"""Name of a setting with a special format → an example line."""

WITH_COLONS = "; put each setting on a line of its own, with a space after its colon"


def problems(invalid: ValidationError, source: Source, root: Any = RunConfig) -> Iterator[ConfigProblem]:
    """One problem per invalid setting that has none in the source yet; root is the validated section."""
    found: dict[DottedPath, ConfigProblem] = {}
    errors = invalid.errors(include_url=False)
    errors.sort(key=lambda one: source.nearest(one["loc"])[1].order)
    for number, one in enumerate(errors):
        problem = _problem(one, source, root, listed=number < MOST_PROBLEMS)
        found.setdefault(problem.path, problem)
    for known in source.problems:
        found.pop(known.path, None)
    # For a list pydantic reports both its wrong entries and that it is not one of the legal words.
    above = {path[:length] for path in found for length in range(len(path))}
    yield from (problem for path, problem in found.items() if path not in above)


def _problem(found: Mapping[str, Any], source: Source, root: Any, *, listed: bool) -> ConfigProblem:
    path: DottedPath = found["loc"]
    _, place = source.nearest(path)
    kind = found["type"]
    if kind == "missing":
        return ConfigProblem(place, path, f"missing; add `{_example(path)}`")
    if kind == "extra_forbidden":
        unknown = unknown_setting(path, search=listed) if root is RunConfig else unknown_in(root, path)
        return ConfigProblem(place, path, unknown)
    if kind == "conflict":
        return ConfigProblem(place, path, found["msg"])
    if kind == "string_pattern_mismatch" and found["input"]:
        what = f"{shown(found['input'])} is not of the form it takes; write for example `{FORMS[path[-1]]}`"
        return ConfigProblem(place, path, what)
    known, member = lookup(path, root)
    stated, place = source.nearest(known)
    if stated != known and found["input"] == "":
        known, member = lookup(stated, root)
    what = _unsuitable(found["input"], known, member, place)
    if stated in ADAPTER and not found["input"]:
        what = f"{what}; {ONLY_ADAPTERS}"
    return ConfigProblem(place, stated, what)


def _unsuitable(value: Any, path: DottedPath, member: Member, place: Place) -> str:
    """Why a setting does not accept a value, and what it accepts."""
    takes = describe(*member)
    if value in (None, "", [], ()):
        missing = f"{'has no value' if value is None else 'is empty'}; "
        example = _example(path)
        return missing + (f"write `{example}`" if example else f"give {takes}, or leave it out")
    written = place.text if place.text is not None and isinstance(value, (int, float)) else shown(value)
    # A shell takes one pair of quotes away.
    quoted = f"write --set {dotted(path)}=\"'{written}'\"" if place.names == path else f"put it in quotes: '{written}'"
    return f"must be {takes}, not {written}{_hint(value, path, member[0], quoted)}"


def _example(path: DottedPath) -> str | None:
    """A line that sets a required setting; a site file has settings of cluster: without that word."""
    name = dotted(tuple(key for key in path if isinstance(key, str)))
    return EXAMPLES.get(name) or EXAMPLES.get(f"cluster.{name}")


def _hint(value: Any, path: DottedPath, annotation: Any, quoted: str) -> str:
    kinds = [kind for kind, _ in members(annotation)]
    if isinstance(value, str):
        return _hint_for_text(value, path, annotation, kinds)
    if str in kinds and isinstance(value, (int, float)):
        return f"; {quoted}"
    if int in kinds and isinstance(value, (int, float)) and abs(value) > LARGEST_INTEGER:
        return f"; the largest is {LARGEST_INTEGER}"
    return ""


def _hint_for_text(value: str, path: DottedPath, annotation: Any, kinds: list[Any]) -> str:
    near = closest(value, choices(annotation), cutoff=0.5)
    if near:
        return f"; did you mean {near}?"
    for section in filter(is_section, kinds):
        return _hint_for_section(value, path, section)
    if any(get_origin(kind) is dict for kind in kinds):
        return WITH_COLONS
    lists = any(get_origin(kind) in (list, tuple) for kind in kinds)
    return f"; for a list of one write [{value}]" if lists and value.isidentifier() else ""


def _hint_for_section(value: str, path: DottedPath, section: Any) -> str:
    """The section's first setting, if the text is valid for it."""
    first = next(iter(section.model_fields))
    try:
        section.model_validate({first: value})
    except ValidationError:
        return WITH_COLONS
    return WITH_COLONS if ":" in value else f"; set {dotted((*path, first))} instead"
