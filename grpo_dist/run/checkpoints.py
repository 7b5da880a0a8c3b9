"""Which checkpoints are complete, and which model a path means: a base model, a result, a checkpoint or an export.

A checkpoint is sealed after every process has written its part.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from grpo_dist.errors import ModelError
from grpo_dist.run.directory import RunDirectory, write_json

SEAL = "complete.json"


def seal(checkpoint: Path) -> None:
    """Record every file of a finished checkpoint with its size in bytes; call it when all processes have written."""
    sizes = {str(p.relative_to(checkpoint)): p.stat().st_size for p in sorted(checkpoint.rglob("*")) if p.is_file()}
    write_json(checkpoint / SEAL, sizes)


def is_complete(checkpoint: Path) -> bool:
    """Whether the checkpoint was sealed and still has every byte it was sealed with."""
    try:
        sizes = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def step_of(checkpoint: Path) -> int:
    """Optimizer steps done when it was saved."""
    return int(checkpoint.name.rpartition("-")[2])


def newest_complete(checkpoints: Path) -> Path | None:
    """The latest checkpoint a run can be resumed from."""
    return next(reversed(all_complete(checkpoints)), None)


def all_complete(checkpoints: Path) -> list[Path]:
    """All complete checkpoints, in the order of their steps."""
    return sorted(filter(is_complete, _all(checkpoints)), key=step_of)


def discard_after(checkpoints: Path, step: int) -> None:
    """Remove checkpoints of later steps, which an interrupted run did not complete."""
    for checkpoint in _all(checkpoints):
        if step_of(checkpoint) > step:
            shutil.rmtree(checkpoint)


def _all(checkpoints: Path) -> list[Path]:
    return [p for p in checkpoints.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]


BASE = "base"
EXPORT_RECORD = "export.json"
"""Records what an export was made from."""
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MODEL_CONFIG = "config.json"

Kind = Literal["base", "run", "checkpoint", "adapter", "model"]


@dataclass(frozen=True)
class ModelSource:
    """One model: whole weights, or an adapter of a base model. All paths are absolute."""

    name: str
    """How it is called in tables."""
    kind: Kind
    """`adapter` and `model` are standalone directories, such as exports; the others belong to a run."""
    run: str | None
    """The run directory it comes from; None if unknown."""
    path: str | None
    """Directory of the adapter or of the whole model; None for a run's base."""


def base_of(run: Path) -> ModelSource:
    """The base model of a run."""
    return ModelSource(BASE, "base", str(run.absolute()), None)


def find_model(path: Path) -> ModelSource:
    """The model at a path: a run directory, a checkpoint in one, or a standalone model or adapter.

    Raises:
        ModelError: none of these, a run that has not ended, or an incomplete checkpoint.
    """
    path = path.absolute()
    run = RunDirectory(path)
    if run.exists():
        return _result_of(run)
    if path.parent.name == "checkpoints" and RunDirectory(path.parent.parent).exists():
        return _checkpoint(path)
    if (path / ADAPTER_CONFIG).is_file():
        return ModelSource(path.name, "adapter", _recorded_run(path), str(path))
    if (path / MODEL_CONFIG).is_file():
        return ModelSource(path.name, "model", _recorded_run(path), str(path))
    found = "there is no such directory" if not path.exists() else "neither a run, nor a checkpoint, nor a model"
    raise ModelError(f"{path}: {found}", hint=_nearby_runs(path))


def checkpoints_of(run: Path) -> list[ModelSource]:
    """The complete checkpoints of a run, in the order of their steps.

    Raises:
        ModelError: no run directory, or no complete checkpoint.
    """
    check_run(run)
    found = all_complete(RunDirectory(run.absolute()).checkpoints)
    if not found:
        raise ModelError(
            f"{run}: no whole checkpoint in it", hint="they are kept as grpo.save_steps and grpo.save_total_limit say"
        )
    return [_checkpoint(path) for path in found]


def check_run(run: Path) -> None:
    """Check that the path is a run directory.

    Raises:
        ModelError: it is not.
    """
    if not RunDirectory(run).exists():
        raise ModelError(f"{run}: no run directory", hint=_nearby_runs(run))


def disambiguate(sources: Sequence[ModelSource]) -> list[ModelSource]:
    """The same models, with paths in place of names that occur twice.

    Raises:
        ModelError: a model occurs twice.
    """
    places = Counter((source.run if source.kind == "base" else None, source.path) for source in sources)
    if repeated := [place for place, count in places.items() if count > 1]:
        raise ModelError(f"{repeated[0][1] or BASE}: named twice", hint="name two different models")
    names = Counter(source.name for source in sources)
    return [replace(s, name=_location(s)) if names[s.name] > 1 else s for s in sources]


def _result_of(run: RunDirectory) -> ModelSource:
    if run.adapter.is_dir():
        return ModelSource(run.path.name, "run", str(run.path), str(run.adapter))
    kept = all_complete(run.checkpoints)
    raise ModelError(
        f"{run.path}: training has not ended, so there is no adapter yet",
        hint=f"a checkpoint of it is there: {kept[-1]}" if kept else "continue it: grpo-dist run CONFIG --resume",
    )


def _checkpoint(path: Path) -> ModelSource:
    run = path.parent.parent
    if not is_complete(path):
        kept = [str(other) for other in all_complete(path.parent)]
        raise ModelError(
            f"{path}: not a whole checkpoint" if path.exists() else f"{path}: there is no such checkpoint",
            hint=f"these are whole: {', '.join(kept)}" if kept else f"none in {path.parent} is whole yet",
        )
    return ModelSource(f"{run.name}/{path.name}", "checkpoint", str(run), str(path))


def _recorded_run(directory: Path) -> str | None:
    """The run an export was made from, if it still exists."""
    try:
        run = Path(json.loads((directory / EXPORT_RECORD).read_text(encoding="utf-8"))["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(run) if RunDirectory(run).exists() else None


def _location(source: ModelSource) -> str:
    return source.path or f"{BASE} of {source.run}"


def _nearby_runs(path: Path) -> str:
    """A hint that names run directories near the path."""
    if RunDirectory(path.parent).exists():
        return f"give the run directory: {path.parent}"
    folder = path if path.is_dir() else path.parent
    runs = [str(near.parent) for near in sorted(folder.glob("*/config.yaml"))[:8]] if folder.is_dir() else []
    return f"runs there: {', '.join(runs)}" if runs else "give a run directory (RUN), RUN/checkpoints/… or an export"
