"""Checks of Python and of packages, against the versions this release was tested with."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from grpo_dist.config.generators import is_generated
from grpo_dist.doctor.case import DoctorContext
from grpo_dist.findings import Finding

Version = tuple[int, ...]

PYTHON = ((3, 11), (3, 13))
"""Tested from the first version, up to but not including the second."""


@dataclass(frozen=True)
class Tested:
    """A package, the extra that installs it, and its tested versions: from `low`, before `below` (None: no bound)."""

    name: str
    extra: str
    low: str
    below: str | None = None

    @property
    def requirement(self) -> str:
        """The tested versions as a requirement."""
        return f">={self.low}" + (f",<{self.below}" if self.below else "")

    def covers(self, found: str) -> bool:
        """Whether a version is among the tested ones."""
        return numbers(self.low) <= numbers(found) and (self.below is None or numbers(found) < numbers(self.below))


UNSLOTH = Tested("unsloth", "unsloth", "2026.10.7", "2026.11")
"""Bounded to the month: Unsloth patches TRL's source code."""

UNSLOTH_ON_CPU = (2026, 10, 9)
"""The first release that trains without a GPU."""
INSTALL_UNSLOTH = "pip install 'grpo-dist[unsloth]', or --set model.backend=trl"

TESTED = (
    Tested("torch", "train", "2.11", "2.14"),
    Tested("trl", "train", "1.15", "1.17"),
    Tested("transformers", "train", "5.10", "5.18"),
    Tested("peft", "train", "0.19"),
    Tested("accelerate", "train", "1.12"),
    Tested("datasets", "train", "4.7", "6"),
    Tested("math-verify", "train", "0.9", "0.10"),
    Tested("mpmath", "train", "1.3"),
    Tested("vllm", "vllm", "0.22", "0.32"),
    Tested("deepspeed", "deepspeed", "0.19"),
    UNSLOTH,
    Tested("bitsandbytes", "unsloth", "0.50"),
    Tested("reasoning-gym", "reasoning-gym", "0.1.25", "0.2"),
    Tested("trackio", "tracking", "0.43"),
    Tested("tensorboard", "tracking", "2.21"),
    Tested("wandb", "tracking", "0.31"),
)
"""The ranges of setup.cfg; a test checks that they agree."""


def findings(context: DoctorContext) -> Iterator[Finding]:
    yield _python()
    needed = _needed(context)
    for package in TESTED:
        yield from _package(package, needed.get(package.name))
    yield from _pairs(context)
    yield from _attention(context)


def installed(name: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def numbers(text: str) -> Version:
    """`2.13.0+cpu` → (2, 13, 0): the leading numbers of a version."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def unsloth_missing(*, on_cpu: bool) -> str | None:
    """Why the installed Unsloth cannot train; None if it can. It is not imported."""
    found = installed(UNSLOTH.name)
    if found is None:
        return f"Unsloth is not installed for {sys.executable}"
    if not UNSLOTH.covers(found):
        return f"Unsloth {found} is not among the supported versions {UNSLOTH.requirement}"
    if on_cpu and numbers(found) < UNSLOTH_ON_CPU:
        return f"Unsloth {found} needs a GPU; {'.'.join(map(str, UNSLOTH_ON_CPU))} is the first that does not"
    return None


def _python() -> Finding:
    here, (low, below) = sys.version_info[:2], PYTHON
    what = f"Python {sys.version.split()[0]}, {sys.executable}"
    if low <= here < below:
        return Finding("python", "ok", what)
    tested = f"tested with {low[0]}.{low[1]} to {below[0]}.{below[1] - 1}"
    return Finding("python", "warning", f"{what}; {tested}", f"python{low[0]}.{low[1]} -m venv .venv")


def _needed(context: DoctorContext) -> dict[str, str]:
    """Package → what the configuration needs it for."""
    config = context.config
    if config is None:
        return {}
    needed = {package.name: "training" for package in TESTED if package.extra == "train"}
    needed |= dict.fromkeys(config.tracking, "tracking")
    if is_generated(config.data.name_or_path):
        needed["reasoning-gym"] = f"data.name_or_path: {config.data.name_or_path}"
    if config.rollout.uses_vllm:
        needed["vllm"] = "rollout.backend: vllm"
    if config.distributed.strategy.startswith("zero"):
        needed["deepspeed"] = f"distributed.strategy: {config.distributed.strategy}"
    if config.grpo.optim.endswith(("_8bit", "bnb_8bit")) or "paged" in config.grpo.optim:
        needed["bitsandbytes"] = f"grpo.optim: {config.grpo.optim}"
    return needed


def _package(package: Tested, need: str | None) -> Iterator[Finding]:
    found, name = installed(package.name), package.name
    install = f"pip install 'grpo-dist[{package.extra}]'"
    if found is None:
        if need:
            yield Finding(name, "error", f"not installed, and needed for {need}", install)
        return
    if not package.covers(found):
        upgrade = f"pip install '{name}{package.requirement}'"
        yield Finding(name, "warning", f"{found} is not among the tested versions {package.requirement}", upgrade)
    else:
        yield Finding(name, "ok", f"{found} (tested: {package.requirement})")


def _pairs(context: DoctorContext) -> Iterator[Finding]:
    """Versions that are supported, but not for this configuration."""
    trl = installed("trl")
    on_cpu = context.plan is not None and context.plan.topology.on_cpu
    asked = context.config is not None and context.config.model.requires_unsloth
    if asked and (missing := unsloth_missing(on_cpu=on_cpu)):
        yield Finding("backend", "error", f"model.backend: {missing}", INSTALL_UNSLOTH)
    if trl and on_cpu and numbers(trl) < (1, 16):
        what = f"trl {trl} cannot train LoRA adapters on a CPU: its fused head needs a GPU driver"
        yield Finding("trl-on-cpu", "error", what, "pip install 'trl>=1.16,<1.17'")


def _attention(context: DoctorContext) -> Iterator[Finding]:
    attention = context.config.model.attn_implementation if context.config else None
    if attention and attention.startswith("flash_attention") and installed("flash-attn") is None:
        what = f"model.attn_implementation: {attention} needs flash-attn, not installed"
        yield Finding("attention", "error", what, "--set model.attn_implementation=sdpa")
