"""Files and directories that a configuration names: whether they are there, and whether an adapter can be continued.

Nothing is imported and no weights are read.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from grpo_dist.config import RunConfig, load_config
from grpo_dist.config.base import EMBEDDED
from grpo_dist.config.sections import RECIPE, TOKENIZER, LoraSection
from grpo_dist.errors import ModelError, PlanError
from grpo_dist.plan.checks import extra
from grpo_dist.run.checkpoints import ADAPTER_CONFIG, ADAPTER_WEIGHTS, ModelSource, find_adapter
from grpo_dist.run.directory import RunDirectory, read_json


def check_files(config: RunConfig) -> None:
    """Refuse a configuration that names files of the user which are not there, seen from the current directory.

    Raises:
        PlanError: some are missing; the message lists all of them.
    """
    functions = [("rewards.functions", one.name) for one in config.rewards.functions]
    functions.append(("evaluation.scorer", config.evaluation.scorer.name))
    named = [(where, name.rpartition(":")[0]) for where, name in functions if ".py:" in name]
    if config.data.chat_template not in (RECIPE, TOKENIZER):
        named.append(("data.chat_template", config.data.chat_template))
    paths = [(where, Path(file).expanduser()) for where, file in named]
    if missing := [f"{where}: there is no file {path.absolute()}" for where, path in paths if not path.is_file()]:
        raise PlanError("\n".join(missing), hint="give paths relative to the directory you type the command in")
    if config.data.chat_template not in (RECIPE, TOKENIZER):
        template = Path(config.data.chat_template).expanduser().read_text(encoding="utf-8", errors="replace")
        if unread := unread_arguments(template, extra(config, "chat_template_kwargs") or {}):
            raise PlanError(not_read(unread), hint="correct its spelling, or remove it")


def names_local_files(config: RunConfig) -> bool:
    """Whether the data or a function is a file here, or a name that no data set on the Hub can have."""
    sources = [config.data, *([config.warm_start.data] if config.warm_start else [])]
    functions = [*config.rewards.functions, config.evaluation.scorer]
    return any(".py:" in one.name for one in functions) or any(
        one.name_or_path != EMBEDDED
        and (not re.fullmatch(r"[\w.-]+/[\w.-]+", one.name_or_path) or Path(one.name_or_path).exists())
        for one in sources
    )


def unread_arguments(template: str, arguments: Iterable[str]) -> list[str]:
    """The template arguments whose names do not occur in a chat template."""
    return [name for name in arguments if not re.search(rf"\b{re.escape(name)}\b", template)]


def not_read(names: Sequence[str]) -> str:
    """What is wrong with arguments that no template reads."""
    return f"grpo.chat_template_kwargs: the chat template does not read {', '.join(names)}, so it would have no effect"


def check_adapter(config: RunConfig) -> None:
    """Check that `model.adapter` is an adapter that the run can continue: of the model, and as `lora:` says.

    Raises:
        PlanError: it is not, or there is none; the message says what to set.
    """
    if config.model.adapter is None:
        return
    try:
        found = find_adapter(Path(config.model.adapter))
    except ModelError as error:
        raise PlanError(f"model.adapter: {error.message}", hint=error.hint) from error
    if found.kind == "model" or found.path is None:
        raise PlanError(
            f"model.adapter: {config.model.adapter} is a whole model",
            hint=f"--set model.name_or_path={shlex.quote(config.model.adapter)} --set model.adapter=null",
        )
    directory = Path(found.path)
    if not (directory / ADAPTER_WEIGHTS).is_file():
        raise PlanError(f"model.adapter: {directory} has no {ADAPTER_WEIGHTS}", hint="save it with safetensors")
    stated = read_json(directory / ADAPTER_CONFIG, "name another adapter: --set model.adapter=PATH")
    if wrong := _not_continued(stated):
        raise PlanError(f"model.adapter: {directory} {wrong}, and this program trains plain LoRA adapters")
    if differences := list(_unlike(stated, config.lora)):
        listed = "; ".join(f"its {name} is {theirs}, lora.{name} is {ours}" for name, theirs, ours in differences)
        ways = (f"--set {shlex.quote(f'lora.{name}={written(theirs)}')}" for name, theirs, _ in differences)
        raise PlanError(f"model.adapter: {directory} is another kind of adapter: {listed}", hint=" ".join(ways))
    _check_base(config, found, str(stated.get("base_model_name_or_path") or ""))


def _not_continued(stated: Mapping[str, Any]) -> str | None:
    if (kind := stated.get("peft_type")) != "LORA":
        return f"is of kind {kind}"
    extras = ("use_dora", "modules_to_save", "trainable_token_indices", "rank_pattern", "alpha_pattern")
    used = [name for name in extras if stated.get(name)]
    if stated.get("bias", "none") != "none":
        used.append("bias")
    return f"uses {', '.join(used)}" if used else None


def _unlike(stated: Mapping[str, Any], lora: LoraSection) -> Iterator[tuple[str, Any, Any]]:
    """(name, the adapter's, the configuration's) of what has to be the same; PEFT writes all-linear as the layers."""
    for name, default in (("r", None), ("lora_alpha", None), ("use_rslora", False)):
        if stated.get(name, default) != getattr(lora, name):
            yield name, stated.get(name, default), getattr(lora, name)
    theirs, ours = stated.get("target_modules"), lora.target_modules
    if isinstance(theirs, list) and ours != "all-linear" and set(theirs) != set(ours):
        yield "target_modules", sorted(theirs), list(ours)
    if isinstance(theirs, str) and theirs != ours:
        yield "target_modules", theirs, ours


def written(value: Any) -> str:
    """A value as it is typed after `--set NAME=`."""
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else json.dumps(value).strip('"')


def _check_base(config: RunConfig, found: ModelSource, base: str) -> None:
    """Check that the adapter was trained on the model; a copy of it may be elsewhere, under the same last name."""
    ours = config.model.name_or_path
    of = load_config(RunDirectory(Path(found.run)).config) if found.run else None
    base = of.model.name_or_path if of else base
    if EMBEDDED in (ours, base):
        seeds = (of.grpo.seed if of else None, config.grpo.seed)
        if ours == base and seeds[0] not in (None, seeds[1]):
            raise PlanError(
                f"model.adapter: its embedded model was made with grpo.seed {seeds[0]}, and this one with {seeds[1]}",
                hint=f"--set grpo.seed={seeds[0]}",
            )
    if not base or _last_name(base) == _last_name(ours):
        return
    raise PlanError(
        f"model.adapter: {found.path} was trained on {base}, and model.name_or_path is {ours}",
        hint=f"--set model.name_or_path={shlex.quote(base)}, or an adapter of {ours}",
    )


def _last_name(name: str) -> str:
    return _snapshot_of(name) or Path(name).name.lower()


def _snapshot_of(name: str) -> str | None:
    """The model whose snapshot in the Hub cache a path is."""
    owner = next((part for part in Path(name).parts if part.startswith("models--")), None)
    return owner and owner.rpartition("--")[2].lower()
