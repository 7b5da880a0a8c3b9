"""What `grpo-dist compare` asks of the process that answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from grpo_dist.models import ModelSource


@dataclass(frozen=True)
class CompareRequest:
    """Models to compare, in order, and the run whose settings, judge and problems they are compared with."""

    run: str
    models: tuple[ModelSource, ...]
    overrides: tuple[str, ...]
    """`a.b=v` over the run's configuration; under `data` and `evaluation` only."""
    other_data: bool
    """Whether the problems are read anew, as the overrides say; otherwise they are those the run held out."""
    result: str
    """The JSON file to write."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> CompareRequest:
        models = tuple(ModelSource(**model) for model in fields["models"])
        return cls(**{**fields, "models": models, "overrides": tuple(fields["overrides"])})
