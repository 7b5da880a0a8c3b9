"""The model card of an export: the recipe, its results, how the export was checked, and the software used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from grpo_dist.config.base import EMBEDDED
from grpo_dist.masking import masked
from grpo_dist.report.numbers import number, percent, points
from grpo_dist.report.record import RunRecord
from grpo_dist.report.summary import summary

RECIPE = ("model", "lora", "data", "rewards", "warm_start", "grpo", "evaluation")
"""Sections of the configuration that others need; where it ran stays private."""
LIBRARIES = {"adapter": "peft", "merged": "transformers", "vllm": "transformers"}


@dataclass(frozen=True)
class Export:
    """What the card says about the export itself."""

    name: str
    form: str
    dtype: str
    step: int | None
    """The checkpoint's; None for the end of training."""
    base_model: str
    checks: tuple[Mapping[str, Any], ...]
    """As in `export.json`."""
    versions: Mapping[str, str]
    """Package → version, of the machine that made the export."""
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    """`grpo.chat_template_kwargs`, without which prompts would differ from those in training."""


def model_card(record: RunRecord, export: Export) -> str:
    """README.md: front matter for the Hub, then Markdown. Local paths are given by their last part only."""
    if export.step is not None:
        upto = tuple(line for line in record.metrics if line["step"] <= export.step)
        record = replace(record, metrics=upto, comparison=None)
    record = replace(record, config=masked(record.config))
    environment = Environment(
        loader=PackageLoader("grpo_dist.export", "templates"),
        autoescape=False,  # Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, percent=percent, points=points)
    return environment.get_template("card.md.jinja").render(
        front=_yaml(_front_matter(record, export)),
        export=export,
        base=_called(export.base_model, "the embedded model of grpo-dist"),
        data=_called(str(record.stated("data.name_or_path")), "its embedded additions"),
        recipe=_yaml(without_places({name: record.config[name] for name in RECIPE if name in record.config})),
        figures=summary(record),
        trained_with=record.environment.get("packages", {}),
    )


def without_places(value: Any) -> Any:
    """The same plain data with local paths reduced to their last part and unset values omitted, for other readers."""
    if isinstance(value, Mapping):
        return {key: without_places(inner) for key, inner in value.items() if inner not in (None, {}, [])}
    if isinstance(value, (list, tuple)):
        return [without_places(inner) for inner in value]
    return _place(value) if isinstance(value, str) else value


def on_the_hub(name_or_path: str) -> bool:
    """Whether other users can find a model or data set under this name."""
    return name_or_path != EMBEDDED and not name_or_path.startswith(("/", ".", "~"))


def _called(name_or_path: str, embedded: str) -> str:
    return embedded if name_or_path == EMBEDDED else _place(name_or_path)


def _place(text: str) -> str:
    return Path(text).name if text.startswith("/") and "\n" not in text else text


def _front_matter(record: RunRecord, export: Export) -> dict[str, Any]:
    found: dict[str, Any] = {
        "library_name": LIBRARIES[export.form],
        "pipeline_tag": "text-generation",
        "tags": ["grpo", "trl", "lora", "grpo-dist"],
    }
    if on_the_hub(export.base_model):
        found["base_model"] = export.base_model
        found["base_model_relation"] = "adapter" if export.form == "adapter" else "finetune"
    data = str(record.stated("data.name_or_path"))
    if on_the_hub(data):
        found["datasets"] = [data]
    return found


def _yaml(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000).rstrip()
