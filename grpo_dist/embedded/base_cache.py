"""Caches base models in the user's cache directory: creating one takes half a minute, copying it no time."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import torch

from grpo_dist.embedded import model
from grpo_dist.plan.specs.lookup import EMBEDDED

KEPT_MODELS = 16
"""Most models kept; beyond that the oldest is removed. Each takes 4 MB."""
DIGESTS = "sha256.json"
"""File → SHA-256, beside the files of a kept model."""


def build(directory: Path, seed: int, progress: Callable[[str], None], *, _steps: int = model.STEPS) -> None:
    """Like `model.build`, but copied if the same model was created before by this code on a machine like this one.

    Raises:
        OSError: `directory` cannot be written, or holds something already.
    """
    kept = _home() / _recipe(seed, _steps)
    if _is_whole(kept):
        _copy(kept, directory)
        progress(f"base model: copied from {kept}")
        return
    model.build(directory, seed, progress, _steps=_steps)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the run
        _keep(directory, kept)


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grpo-dist" / "embedded"


def _recipe(seed: int, steps: int) -> str:
    """A digest of everything the bytes of the model depend on."""
    code = [path.read_text(encoding="utf-8") for path in sorted(Path(model.__file__).parent.glob("*.py"))]
    packages = {name: version(name) for name in ("torch", "transformers", "tokenizers", "safetensors")}
    machine = [platform.python_version(), torch.__version__, torch.backends.cpu.get_cpu_capability(), _cpu()]
    recipe = [seed, steps, torch.get_num_threads(), asdict(EMBEDDED), code, packages, machine]
    return sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _cpu() -> str:
    """The CPU model of this machine: another one may round differently."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line
    return platform.machine()


def _digests(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.iterdir() if path.name != DIGESTS)
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in files}


def _is_whole(kept: Path) -> bool:
    try:
        return json.loads((kept / DIGESTS).read_text(encoding="utf-8")) == _digests(kept)
    except (OSError, ValueError):
        return False


def _copy(kept: Path, directory: Path) -> None:
    """Atomically, like a newly created one."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as unfinished:
        whole = Path(unfinished) / directory.name
        shutil.copytree(kept, whole, ignore=shutil.ignore_patterns(DIGESTS))
        whole.rename(directory)


def _keep(directory: Path, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=kept.parent) as unfinished:
        draft = Path(unfinished) / kept.name
        shutil.copytree(directory, draft)
        (draft / DIGESTS).write_text(json.dumps(_digests(draft)), encoding="utf-8")
        shutil.rmtree(kept, ignore_errors=True)  # an incomplete one
        draft.rename(kept)
    others = [path for path in kept.parent.iterdir() if not path.name.startswith(".")]
    for old in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT_MODELS:]:
        shutil.rmtree(old, ignore_errors=True)
