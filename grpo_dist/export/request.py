"""What `grpo-dist export` asks of the process that makes the export."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from grpo_dist.models import ADAPTER_WEIGHTS, ModelSource

Form = Literal["adapter", "merged", "vllm"]
HALF = ("bfloat16", "float16")
"""What vLLM serves a model in; it would cast float32 by itself, unchecked."""


@dataclass(frozen=True)
class ExportRequest:
    """One export. `draft` becomes `output` when everything in it has been checked."""

    source: ModelSource
    """A run or one of its checkpoints."""
    to: Form
    dtype: str
    """Of the merged weights; an adapter keeps its own."""
    output: str
    draft: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ExportRequest:
        return cls(**{**fields, "source": ModelSource(**fields["source"])})


def export_dtype(to: Form, stated: str | None, trained: str) -> str:
    """The dtype of the merged weights: the one stated, else that of the training; for vLLM one of 16 bits."""
    if stated is not None:
        return stated
    return "bfloat16" if to == "vllm" and trained not in HALF else trained


def made_from(adapter: Path, to: Form, dtype: str) -> dict[str, str]:
    """What makes two exports the same, wherever the run lies; part of `export.json`."""
    digest = hashlib.sha256((adapter / ADAPTER_WEIGHTS).read_bytes()).hexdigest()
    return {"adapter_sha256": digest, "to": to, "dtype": dtype}
