"""Which checkpoints are complete, and which model a path means: a base model, a result, a checkpoint or an export.

A checkpoint is sealed after every process has written its part, and counts as long as every file is what was saved.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from grpo_dist.errors import ModelError, RunDirectoryError
from grpo_dist.run.directory import RunDirectory, give_access, read_json, write_json

SEAL, TRAINED = "complete.json", "trained.json"


def seal(checkpoint: Path) -> None:
    """Record every file of a finished checkpoint with its SHA-256; call it when all processes have written."""
    give_access(checkpoint)
    files = (path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != SEAL)
    write_json(checkpoint / SEAL, {str(path.relative_to(checkpoint)): _digest(path) for path in files})


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, which is read whole; None if it is as it was sealed.

    Earlier versions recorded the size of each file, in bytes, and no digest.
    """
    if not (checkpoint / SEAL).exists():
        return "saving it was not finished"
    try:
        sealed = read_json(checkpoint / SEAL)
        if not sealed:
            return f"its {SEAL} lists no files"
        changed = [name for name, mark in sealed.items() if not _matches(checkpoint / name, mark)]
    except (OSError, ValueError, RunDirectoryError):
        return f"its {SEAL} cannot be read"
    return f"{', '.join(changed)}: not what was saved" if changed else None


def note_trained(checkpoint: Path, seconds: float) -> None:
    """Record how long the run had trained, over all attempts, when the checkpoint was saved; before its seal."""
    write_json(checkpoint / TRAINED, {"seconds": round(seconds, 3)})


def trained_seconds(checkpoint: Path | None) -> float:
    """How long the run had trained; 0 if it was not recorded, as in earlier versions."""
    try:
        return float(read_json(checkpoint / TRAINED).get("seconds", 0.0)) if checkpoint else 0.0
    except (RunDirectoryError, TypeError, ValueError):
        return 0.0


def is_complete(checkpoint: Path) -> bool:
    """Whether the checkpoint was sealed and still has every byte it was sealed with."""
    return damage(checkpoint) is None


def step_of(checkpoint: Path) -> int:
    """Optimizer steps done when it was saved."""
    return int(checkpoint.name.rpartition("-")[2])


def newest_complete(checkpoints: Path) -> Path | None:
    """The latest checkpoint a run can be resumed from."""
    return next(newest_first(checkpoints), None)


def newest_first(checkpoints: Path) -> Iterator[Path]:
    """The complete checkpoints, the latest first; each is read when it is asked for."""
    return filter(is_complete, reversed(_all(checkpoints)))


def newest_step(checkpoints: Path) -> int:
    """Optimizer steps of the latest sealed checkpoint; 0 if there is none."""
    checkpoint = newest_sealed(checkpoints)
    return 0 if checkpoint is None else step_of(checkpoint)


def all_complete(checkpoints: Path) -> list[Path]:
    """All complete checkpoints, in the order of their steps."""
    return [*newest_first(checkpoints)][::-1]


def newest_sealed(checkpoints: Path) -> Path | None:
    """The latest sealed checkpoint, without reading it: for who must not wait for a disk."""
    return next((path for path in reversed(_all(checkpoints)) if (path / SEAL).exists()), None)


def damaged_after(checkpoints: Path, step: int) -> Iterator[tuple[Path, str]]:
    """Sealed checkpoints of later steps that are no longer what was saved, each with what is wrong."""
    for checkpoint in _all(checkpoints):
        if step_of(checkpoint) > step and (checkpoint / SEAL).exists() and (wrong := damage(checkpoint)):
            yield checkpoint, wrong


def discard_after(checkpoints: Path, step: int) -> None:
    """Remove checkpoints of later steps, which an interrupted run did not complete."""
    for checkpoint in _all(checkpoints):
        if step_of(checkpoint) > step:
            shutil.rmtree(checkpoint)


def _all(checkpoints: Path) -> list[Path]:
    found = (path for path in checkpoints.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name))
    return sorted(found, key=step_of)


def _matches(file: Path, mark: object) -> bool:
    if not file.is_file():
        return False
    return file.stat().st_size == mark if type(mark) is int else _digest(file) == mark


def _digest(file: Path) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


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


def find_adapter(path: Path) -> ModelSource:
    """As `find_model`, but the directory `adapter` of a run counts as that run.

    Raises:
        As `find_model`.
    """
    path = path.absolute()
    of_run = path.name == "adapter" and RunDirectory(path.parent).exists()
    return find_model(path.parent if of_run else path)


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
    newest = newest_complete(run.checkpoints)
    raise ModelError(
        f"{run.path}: training has not ended, so there is no adapter yet",
        hint=f"a checkpoint of it is there: {newest}" if newest else "continue it: grpo-dist run CONFIG --resume",
    )


def _checkpoint(path: Path) -> ModelSource:
    run = path.parent.parent
    if wrong := damage(path):
        kept = [str(other) for other in all_complete(path.parent)]
        raise ModelError(
            f"{path}: not a whole checkpoint: {wrong}" if path.exists() else f"{path}: there is no such checkpoint",
            hint=f"these are whole: {', '.join(kept)}" if kept else f"none in {path.parent} is whole yet",
        )
    return ModelSource(f"{run.name}/{path.name}", "checkpoint", str(run), str(path))


def _recorded_run(directory: Path) -> str | None:
    """The run an export was made from, if it still exists."""
    try:
        run = Path(read_json(directory / EXPORT_RECORD)["run"])
    except (RunDirectoryError, KeyError, TypeError):
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
