"""A model's name or directory → its architecture: from the directory, the Hub cache, or the built-in table.

For the models in the table, planning needs neither their files nor a network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_dist.config import base
from grpo_dist.errors import PlanError
from grpo_dist.plan.specs.architecture import Architecture, from_config
from grpo_dist.text import closest

EMBEDDED = Architecture(
    model_type="qwen3",
    hidden_size=128,
    intermediate_size=384,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=32,
    vocab_size=107,
    max_position_embeddings=1024,
    tie_word_embeddings=True,
    qk_norm=True,
)
"""The tiny model included in the package."""


def _qwen3(hidden: int, mlp: int, layers: int, heads: int, *, tied: bool, positions: int) -> Architecture:
    """Qwen3 Technical Report (2025), table 1, and the models' `config.json`."""
    return Architecture(
        model_type="qwen3",
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151_936,
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
        qk_norm=True,
    )


_CHAT, _BASE = 40_960, 32_768

KNOWN: dict[str, Architecture] = {
    "Qwen3-0.6B": _qwen3(1024, 3072, 28, 16, tied=True, positions=_CHAT),
    "Qwen3-0.6B-Base": _qwen3(1024, 3072, 28, 16, tied=True, positions=_BASE),
    "Qwen3-1.7B": _qwen3(2048, 6144, 28, 16, tied=True, positions=_CHAT),
    "Qwen3-1.7B-Base": _qwen3(2048, 6144, 28, 16, tied=True, positions=_BASE),
    "Qwen3-4B": _qwen3(2560, 9728, 36, 32, tied=True, positions=_CHAT),
    "Qwen3-4B-Base": _qwen3(2560, 9728, 36, 32, tied=True, positions=_BASE),
    "Qwen3-8B": _qwen3(4096, 12_288, 36, 32, tied=False, positions=_CHAT),
    "Qwen3-8B-Base": _qwen3(4096, 12_288, 36, 32, tied=False, positions=_BASE),
    "Qwen3-14B": _qwen3(5120, 17_408, 40, 40, tied=False, positions=_CHAT),
    "Qwen3-14B-Base": _qwen3(5120, 17_408, 40, 40, tied=False, positions=_BASE),
    "Qwen3-32B": _qwen3(5120, 25_600, 64, 64, tied=False, positions=_CHAT),
}
"""Name on the Hub, without its owner → architecture."""

OWNERS = ("Qwen", "unsloth")
"""Owners that publish them under these names."""


def architecture_of(
    name_or_path: str, revision: str | None = None, *, environ: Mapping[str, str] | None = None
) -> Architecture:
    """The architecture Transformers would find under this name, without importing it and without a network.

    Args:
        name_or_path: Hub id, local directory, or `embedded`.
        revision: branch, tag or commit in the Hub cache; `main` when None.
        environ: where HF_HUB_CACHE, HF_HOME and XDG_CACHE_HOME are looked up; this process's when None.

    Raises:
        PlanError: the model's shape is unknown, or it is of an unsupported kind.
    """
    if name_or_path == base.EMBEDDED:
        return EMBEDDED
    file = _config_file(name_or_path, revision or "main", os.environ if environ is None else environ)
    if file is not None:
        return from_config(_read(file, name_or_path), name_or_path)
    owner, _, name = name_or_path.rpartition("/")
    if owner in OWNERS and name in KNOWN:
        return KNOWN[name]
    raise _unknown(name_or_path, revision)


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Where the Hub client keeps models, by its own rules (`huggingface_hub/constants.py`)."""
    cache = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or str(hub_home(environ) / "hub")
    return Path(os.path.expandvars(cache)).expanduser()


def hub_home(environ: Mapping[str, str]) -> Path:
    """Where the Hub client keeps its token and caches."""
    default = os.path.join(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(environ.get("HF_HOME") or default).expanduser()


def hub_repository(environ: Mapping[str, str], name: str) -> Path:
    """The folder of a model in the Hub's cache; it need not exist."""
    return hub_cache(environ) / f"models--{name.replace('/', '--')}"


def _config_file(name_or_path: str, revision: str, environ: Mapping[str, str]) -> Path | None:
    directory = Path(name_or_path).expanduser()
    if directory.is_dir():
        return directory / "config.json"
    repository = hub_repository(environ, name_or_path)
    reference = repository / "refs" / revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    cached = repository / "snapshots" / commit / "config.json"
    return cached if cached.is_file() else None


def _read(file: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PlanError(
            f"model.name_or_path: {name} holds no config.json",
            hint="give the directory that holds config.json, the weights and the tokenizer",
        ) from None
    except (OSError, ValueError) as error:
        raise PlanError(
            f"model.name_or_path: {file} cannot be read: {error}", hint="download the model again, or repair the file"
        ) from error
    if not isinstance(content, dict):
        raise PlanError(f"model.name_or_path: {file} is no mapping", hint="download the model again")
    return content


def _unknown(name: str, revision: str | None) -> PlanError:
    names = [f"{OWNERS[0]}/{known}" for known in KNOWN]
    close = closest(name.rpartition("/")[2], KNOWN)
    if name.startswith((".", "/", "~")):
        return PlanError(f"model.name_or_path: there is no directory {name}", hint="check the path")
    if close and name.rpartition("/")[0] in ("", *OWNERS):
        return PlanError(
            f"model.name_or_path: {name} is neither in the Hub cache nor known by name",
            hint=f"did you mean {OWNERS[0]}/{close}? Known by name: {', '.join(names)}",
        )
    at = f" at revision {revision}" if revision else ""
    fetch = f"hf download {name}" + (f" --revision {revision}" if revision else "") + " config.json"
    return PlanError(
        f"model.name_or_path: {name}{at} is neither in the Hub cache nor known by name",
        hint=f"fetch it where there is a network ({fetch}), or give a local directory. "
        f"Known by name: {', '.join(names)}",
    )
