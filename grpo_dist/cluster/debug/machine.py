"""What this machine has for a debug run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from grpo_dist.cluster.doctor.devices import seen_by_torch
from grpo_dist.cluster.doctor.hub import cached_snapshot, missing_files, obstacle_of
from grpo_dist.config import RunConfig
from grpo_dist.config.section import EMBEDDED
from grpo_dist.errors import LaunchError, ModelError
from grpo_dist.findings import Finding
from grpo_dist.plan.debug import DebugMachine

TOKENIZER = "tokenizer.json"
"""The name under which `missing_files` lists it."""


def this_machine(config: RunConfig, environ: Mapping[str, str]) -> DebugMachine:
    """Its first GPU, or its memory, and whether the model of a configuration can be had.

    Raises:
        LaunchError: PyTorch is not there or cannot be imported.
        ModelError: not even the tokenizer can be had.
    """
    seen = seen_by_torch(environ)
    if seen is None or isinstance(seen, Finding):
        what, hint = (seen.what, seen.hint) if seen else ("PyTorch is not installed", "pip install 'grpo-dist[train]'")
        raise LaunchError(what, hint=hint)
    lacks = _lacks_model(config, environ)
    vllm = find_spec("vllm") is not None
    if not seen["gpus"]:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return DebugMachine(None, memory, vllm=vllm, lacks_model=lacks)
    first = seen["gpus"][0]
    return DebugMachine(first["name"], first["total"], seen["bfloat16"], vllm, lacks)


def _lacks_model(config: RunConfig, environ: Mapping[str, str]) -> str | None:
    name = config.model.name_or_path
    if name == EMBEDDED:
        return None
    local = Path(name).expanduser()
    place = local if local.is_dir() else cached_snapshot(environ, name, config.model.revision)
    missing = missing_files(place) if place else ["everything"]
    if not missing:
        return None
    if place == local:
        obstacle = f"{name} lacks {', '.join(missing[:3])}"
    else:
        obstacle = obstacle_of(environ, "models", name)
        if obstacle is None:
            return None
        obstacle = f"it is not whole in the cache, and the Hub does not help: {obstacle}"
    if place is None or TOKENIZER in missing:
        raise ModelError(
            f"model.name_or_path: neither {name} nor its tokenizer can be had here: {obstacle}",
            hint=f"where there is a network: grpo-dist prefetch CONFIG, or for a trial with random weights "
            f"hf download {name} config.json tokenizer.json tokenizer_config.json; or --set model.name_or_path=PATH",
        )
    return obstacle
