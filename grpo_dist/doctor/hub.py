"""Checks whether model and data of the configuration can be loaded: local, from the cache, or from the Hub."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from grpo_dist.config.base import EMBEDDED
from grpo_dist.config.generators import is_generated
from grpo_dist.config.sections import ModelSection, SourceSection
from grpo_dist.data.readers import is_local
from grpo_dist.doctor.case import DoctorContext
from grpo_dist.findings import Finding
from grpo_dist.plan.specs.lookup import hub_home, hub_repository

ENDPOINT = "https://huggingface.co"
SECONDS = 5.0
PREFETCH = "on a machine with network: grpo-dist prefetch CONFIG"
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


def findings(context: DoctorContext) -> Iterator[Finding]:
    if context.config is None:
        yield _reach(context.environ)
        return
    yield from model(context)
    yield _available(context, "data", "datasets", context.config.data)
    if context.config.warm_start:
        yield _available(context, "warm_start.data", "datasets", context.config.warm_start.data)


def model(context: DoctorContext) -> Iterator[Finding]:
    """Only the model; the context must have a configuration."""
    yield _available(context, "model", "models", context.config.model)


def _available(context: DoctorContext, section: str, kind: str, named: ModelSection | SourceSection) -> Finding:
    what, name = section.replace(".", "-").replace("_", "-"), named.name_or_path
    if name == EMBEDDED:
        return Finding(what, "ok", "embedded in the program")
    if is_generated(name):
        return Finding(what, "ok", f"{name} is made on the spot")
    if Path(name).expanduser().exists():
        return Finding(what, "ok", f"{name} is there")
    if name.startswith(("/", "./", "../", "~")) or (kind == "datasets" and is_local(name)):
        return Finding(what, "error", f"{name} is not there", f"--set {section}.name_or_path=PATH")
    ready, cached = _cached(context.environ, named)
    if ready:
        return Finding(what, "ok", cached)
    obstacle = obstacle_of(context.environ, kind, name)
    if obstacle is None:
        return Finding(what, "ok", f"{cached}; the Hub has it")
    return Finding(what, "error", f"{cached}, and the Hub does not help: {obstacle}", PREFETCH)


def _cached(environ: Mapping[str, str], named: ModelSection | SourceSection) -> tuple[bool, str]:
    """Whether a run could load it offline, and a sentence on what the cache has."""
    name, revision = named.name_or_path, named.revision
    if isinstance(named, ModelSection):
        snapshot = cached_snapshot(environ, name, revision)
        missing = missing_files(snapshot) if snapshot else []
        if missing:
            return False, f"{name} is in the cache but for {', '.join(missing[:3])}"
        cached = snapshot is not None
    else:
        cached = cached_data(environ, name, named.config)
        if cached and revision is not None:  # that cache does not record the revision, so a run does not use it
            return False, f"{name} is in the cache, of a revision that may not be {revision}"
    return cached, f"{name} is {'' if cached else 'not '}in the cache"


def cached_data(environ: Mapping[str, str], name: str, config: str | None) -> bool:
    """Whether the cache of `datasets` has a data set (`owner___name/config/…/dataset_info.json`)."""
    cache = Path(environ.get("HF_DATASETS_CACHE") or hub_home(environ) / "datasets").expanduser()
    folders = [folder for folder in cache.glob("*") if _plain(folder.name) == _plain(name.replace("/", "___"))]
    return any(any(folder.glob(f"{config or '*'}/**/dataset_info.json")) for folder in folders)


def _plain(name: str) -> str:
    """A name without the differences that `datasets` makes when it converts names to snake case."""
    return re.sub(r"[_-]", "", name).lower()


def cached_snapshot(environ: Mapping[str, str], name: str, revision: str | None) -> Path | None:
    """The folder of a model's revision in the Hub cache; None if it is missing or empty."""
    repository = hub_repository(environ, name)
    reference = repository / "refs" / (revision or "main")
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision or "main"
    snapshot = repository / "snapshots" / commit
    return snapshot if snapshot.is_dir() and any(snapshot.iterdir()) else None


def missing_files(snapshot: Path) -> list[str]:
    """Required files that a snapshot lacks: configuration, tokenizer, every shard of the weights."""
    there = {path.name for path in snapshot.iterdir() if path.exists()}  # a broken link does not count
    missing = [] if "config.json" in there else ["config.json"]
    if not there & {"tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json"}:
        missing.append("tokenizer.json")
    indices = sorted(
        (name for name in there if name.endswith(".index.json")), key=lambda name: "safetensors" not in name
    )
    index = snapshot / indices[0] if indices else None
    if index is not None:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing += sorted(shards - there)
    elif not any(name.endswith((".safetensors", ".bin")) for name in there):
        missing.append("model.safetensors")
    return missing


def _reach(environ: Mapping[str, str]) -> Finding:
    obstacle = obstacle_of(environ, "models", "")
    if obstacle is None:
        return Finding("hub", "ok", f"{_endpoint(environ)} answers")
    return Finding("hub", "warning", f"the Hub does not answer: {obstacle}", PREFETCH)


def obstacle_of(environ: Mapping[str, str], kind: str, name: str) -> str | None:
    """Why it cannot be downloaded from the Hub; None if it can.

    Args:
        kind: `models` or `datasets`.
    """
    switch = next((name for name in OFFLINE if environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON")), None)
    if switch:
        return f"{switch} is set"
    url = f"{_endpoint(environ)}/api/{kind}/{name}" if name else f"{_endpoint(environ)}/api/models?limit=1"
    token = environ.get("HF_TOKEN")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):
            return None
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):
            return (
                f"it knows no {name}, or does not show it to you (HTTP {error.code}); check the spelling and HF_TOKEN"
            )
        return f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def _endpoint(environ: Mapping[str, str]) -> str:
    return (environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
