"""GPUs and links known to the planner: vendor's data sheet figures, in bytes, bytes/s and FLOP/s.

Peaks are dense (without 2:4 sparsity, which halves the figure most data sheets print) and one-directional: a data
sheet's NVLink figure counts both directions. The fraction of a peak that programs reach is in `plan.time.Efficiencies`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from grpo_dist.errors import PlanError
from grpo_dist.text import closest


@dataclass(frozen=True)
class Link:
    """A connection between two GPUs, or of one network port."""

    name: str
    bandwidth: float
    """bytes/s in one direction, at line rate."""
    latency: float
    """Seconds per hop of a small collective: `hwLat` (tree, LL) of NCCL's src/graph/tuning.cc."""


@dataclass(frozen=True)
class Gpu:
    """One accelerator."""

    name: str
    memory: int
    """Bytes a program can allocate in all, as the driver reports them; below the nominal size."""
    flops: float
    """FLOP/s of dense matrix products in `dtype`, accumulated in 32 bit."""
    bandwidth: float
    """bytes/s from device memory."""
    link: str
    """Name of the `Link` to the other GPUs of its node."""
    dtype: str
    """bfloat16; float16 on a chip without it; float32 on CPU."""
    source: str
    """Source of the figures."""

    @property
    def dtype_bytes(self) -> int:
        """Bytes of a weight, an activation and a KV entry."""
        return 4 if self.dtype == "float32" else 2


class UnknownHardware(PlanError):
    """A name the tables do not have."""

    def __init__(self, message: str, *, otherwise: str, near: str | None = None) -> None:
        super().__init__(message, hint=_did_you_mean(near) + otherwise)
        self.near = near
        """The most likely intended name."""
        self.otherwise = f"or {otherwise}"


def _gib(number: float) -> int:
    return int(number * 2**30)


LINKS: dict[str, Link] = {
    link.name: link
    for link in (
        Link("nvlink3", 300e9, 0.6e-6),
        Link("nvlink4", 450e9, 0.6e-6),
        Link("nvlink5", 900e9, 0.6e-6),
        Link("nvlink-400", 200e9, 0.6e-6),
        Link("pcie3", 15.75e9, 1.0e-6),
        Link("pcie4", 31.5e9, 1.0e-6),
        Link("pcie5", 63.0e9, 1.0e-6),
        Link("infiniband-hdr", 25e9, 5.0e-6),
        Link("infiniband-ndr", 50e9, 5.0e-6),
        Link("ethernet-10", 1.25e9, 5.0e-6),
        Link("ethernet-25", 3.125e9, 5.0e-6),
        Link("ethernet-100", 12.5e9, 5.0e-6),
        Link("ethernet-200", 25e9, 5.0e-6),
        Link("ethernet-400", 50e9, 5.0e-6),
        Link("shared-memory", 10e9, 1.0e-6),
    )
}
"""NVLink: half of 600, 900 and 1800 GB/s (A100, H100, B200 data sheets), and of the 400 of A800 and H800. PCIe:
16 lanes × 8, 16, 32 GT/s × 128/130. InfiniBand HDR 200, NDR 400 Gb/s a port; Ethernet by its number in Gb/s. Latencies:
hwLatencies (tree, LL) of NCCL's src/graph/tuning.cc. `shared-memory` is between CPU processes (our own figures)."""

GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu("rtx-3090", _gib(23.6), 71e12, 936e9, "pcie4", "bfloat16", "NVIDIA GA102 white paper, appendix A"),
        Gpu("rtx-a6000", _gib(47.4), 154.8e12, 768e9, "pcie4", "bfloat16", "NVIDIA RTX A6000 data sheet"),
        Gpu("rtx-6000-ada", _gib(47.4), 364.2e12, 960e9, "pcie4", "bfloat16", "NVIDIA RTX 6000 Ada data sheet"),
        Gpu("t4", _gib(14.7), 65e12, 320e9, "pcie3", "float16", "NVIDIA T4 data sheet; Turing has no bfloat16"),
        Gpu("a10", _gib(22.0), 125e12, 600e9, "pcie4", "bfloat16", "NVIDIA A10 data sheet"),
        Gpu("a10g", _gib(22.0), 70e12, 600e9, "pcie4", "bfloat16", "NVIDIA A10G data sheet"),
        Gpu("a40", _gib(44.3), 149.7e12, 696e9, "pcie4", "bfloat16", "NVIDIA A40 data sheet"),
        Gpu("l4", _gib(22.0), 121e12, 300e9, "pcie4", "bfloat16", "NVIDIA L4 data sheet"),
        Gpu("l40", _gib(44.3), 181e12, 864e9, "pcie4", "bfloat16", "NVIDIA L40 data sheet"),
        Gpu("l40s", _gib(44.3), 362.05e12, 864e9, "pcie4", "bfloat16", "NVIDIA L40S data sheet"),
        Gpu("l20", _gib(44.3), 119.5e12, 864e9, "pcie4", "bfloat16", "NVIDIA L20 data sheet"),
        Gpu("a30", _gib(23.5), 165e12, 933e9, "pcie4", "bfloat16", "NVIDIA A30 data sheet"),
        Gpu("rtx-5090", _gib(31.3), 209.5e12, 1792e9, "pcie5", "bfloat16", "NVIDIA Blackwell white paper, appendix A"),
        Gpu("rtx-4090", _gib(23.6), 165.2e12, 1008e9, "pcie4", "bfloat16", "NVIDIA Ada white paper, appendix A"),
        Gpu("a100-40gb", _gib(39.3), 312e12, 1555e9, "nvlink3", "bfloat16", "NVIDIA A100 data sheet, SXM4"),
        Gpu("a100-80gb", _gib(79.1), 312e12, 2039e9, "nvlink3", "bfloat16", "NVIDIA A100 data sheet, SXM4"),
        Gpu("a100-40gb-pcie", _gib(39.3), 312e12, 1555e9, "pcie4", "bfloat16", "NVIDIA A100 data sheet, PCIe"),
        Gpu("a100-80gb-pcie", _gib(79.1), 312e12, 1935e9, "pcie4", "bfloat16", "NVIDIA A100 data sheet, PCIe"),
        Gpu("a800", _gib(79.1), 312e12, 2039e9, "nvlink-400", "bfloat16", "NVIDIA A800 data sheet, SXM4"),
        Gpu("a800-pcie", _gib(79.1), 312e12, 1935e9, "pcie4", "bfloat16", "NVIDIA A800 data sheet, PCIe"),
        Gpu("h20", _gib(95.0), 148e12, 4.0e12, "nvlink4", "bfloat16", "NVIDIA H20 data sheet"),
        Gpu("h800", _gib(79.1), 989.4e12, 3.35e12, "nvlink-400", "bfloat16", "NVIDIA H800 data sheet, SXM5"),
        Gpu("h800-pcie", _gib(79.1), 756e12, 2.0e12, "pcie5", "bfloat16", "NVIDIA H800 data sheet, PCIe"),
        Gpu("h100", _gib(79.1), 989.4e12, 3.35e12, "nvlink4", "bfloat16", "NVIDIA H100 data sheet, SXM5"),
        Gpu("h100-pcie", _gib(79.1), 756e12, 2.0e12, "pcie5", "bfloat16", "NVIDIA H100 data sheet, PCIe"),
        Gpu("h100-nvl", _gib(93.0), 835e12, 3.9e12, "pcie5", "bfloat16", "NVIDIA H100 NVL data sheet"),
        Gpu("gh200", _gib(94.5), 989.4e12, 4.0e12, "nvlink4", "bfloat16", "NVIDIA GH200 data sheet, 96 GB HBM3"),
        Gpu("h200", _gib(139.7), 989.4e12, 4.8e12, "nvlink4", "bfloat16", "NVIDIA H200 data sheet, SXM5"),
        Gpu("h200-nvl", _gib(139.7), 835e12, 4.8e12, "pcie5", "bfloat16", "NVIDIA H200 NVL data sheet"),
        Gpu("b200", _gib(178.0), 2.25e15, 8e12, "nvlink5", "bfloat16", "NVIDIA DGX B200 data sheet, per GPU"),
        Gpu("gb200", _gib(184.0), 2.5e15, 8e12, "nvlink5", "bfloat16", "NVIDIA GB200 NVL72 data sheet, per GPU"),
        Gpu("b300", _gib(267.7), 2.25e15, 8e12, "nvlink5", "bfloat16", "NVIDIA HGX B300 data sheet, per GPU"),
        Gpu("cpu", _gib(8.0), 100e9, 20e9, "shared-memory", "float32", "rough: two x86 cores with AVX2; override it"),
    )
}
"""By name. `cpu` is an order of magnitude, not a data sheet."""

ALIASES = {
    "a100": "a100-40gb",
    "rtx4090": "rtx-4090",
    "4090": "rtx-4090",
    "rtx3090": "rtx-3090",
    "3090": "rtx-3090",
    "a6000": "rtx-a6000",
    "rtxa6000": "rtx-a6000",
    "rtx5090": "rtx-5090",
    "5090": "rtx-5090",
    "rtx-6000-ada-generation": "rtx-6000-ada",
    "l40-s": "l40s",
    "gh200-480gb": "gh200",
    "a100-pcie": "a100-40gb-pcie",
    "a100-pcie-40gb": "a100-40gb-pcie",
    "a100-pcie-80gb": "a100-80gb-pcie",
    "ndr": "infiniband-ndr",
    "hdr": "infiniband-hdr",
}
"""Short spelling → name. A bare `a100` is the smaller one: a plan for it also runs on the larger. The driver names a
GH200 by the memory of its CPU, 480 GB."""

_FILLERS = {"nvidia", "tesla", "geforce", "hbm2", "hbm2e", "hbm3", "hbm3e", "ac"}
_FILLERS |= {"sxm", "sxm2", "sxm4", "sxm5", "sxm6"}

OTHER_VENDORS = {
    r"\b(amd|instinct|radeon|epyc|navi|gfx\d\w*|mi[1-9]\d{1,2}[ax]?)\b|^rx\b": "AMD",
    r"\b(intel|gaudi\d?|xeon)\b|^(hl|max|arc)\b": "Intel",
    r"\b(tpu|trillium)\b|^v[2-6][ep]\b": "Google",
    r"\b(trainium\d?|inferentia\d?)\b|^trn\d\b": "AWS",
    r"\bascend|^910[abc]?\b": "Huawei",
    r"\bapple\b|^m[1-9]\b": "Apple",
}
"""Words of a name → its vendor, for accelerators without CUDA; those after `^` only at its start."""

_SLICE = re.compile(r"\bmig\b|\b\d+g \d+gb\b|\b\d+[qcab]$")
"""Part of a GPU: `MIG 3g.40gb`, or a virtual one such as `A40-48Q`."""
_VARIANT = re.compile(r"\b(titan|quadro|pro|ti|super|laptop|mobile|d)\b")
_OTHER_CARD = re.compile(
    r"\b([vpk]\d{2,3}s?|a2|a16|a30x|a100x|l2|t4g|b100|gb\d{2,3}|(rtx ?)?(10|16|20|30|40|50)[5-9]0|a?[245][05]00|8000)\b"
)
"""NVIDIA's names of cards that are not in the table, so that they are not taken for misspellings of one that is."""


def gpu(name: str, overrides: Mapping[str, Any] | None = None) -> Gpu:
    """The GPU of that name, as the table or Slurm's GRES spells it, with some figures replaced by the user.

    A name the table does not have is accepted with `memory`, `flops` and `bandwidth` given.

    Raises:
        PlanError: unknown name, unknown figure, or one that is not a positive number.
    """
    overrides = dict(overrides or {})
    _check_overrides(name, overrides)
    known = GPUS.get(_canonical(name))
    if known is not None:
        return replace(known, **overrides, source=_source(known.source, overrides))
    if {"memory", "flops", "bandwidth"} <= overrides.keys():
        return Gpu(**{"name": name, "link": "pcie4", "dtype": "bfloat16", **overrides, "source": "given"})
    raise _unknown(name)


def link(name: str) -> Link:
    """The link of that name.

    Raises:
        PlanError: unknown name.
    """
    plain = re.sub(r"^(\d+)-?gbe?$", r"ethernet-\1", name.strip().lower().replace("_", "-").replace(" ", "-"))
    plain = ALIASES.get(plain.removeprefix("ib-"), plain)
    if plain in LINKS:
        return LINKS[plain]
    raise UnknownHardware(
        f"link {name!r} is not in the table of {', '.join(LINKS)}",
        otherwise="take the one whose bytes/s come nearest",
        near=closest(plain, list(LINKS)),
    )


def _unknown(name: str) -> UnknownHardware:
    figures = "give its memory, flops and bandwidth (bytes, FLOP/s, bytes/s) under cluster.gpu_overrides"
    words = " ".join(_words(name))
    vendor = next((vendor for pattern, vendor in OTHER_VENDORS.items() if re.search(pattern, words)), None)
    if vendor is not None and "nvidia" not in words:
        return UnknownHardware(
            f"GPU {name!r} is not in the table: {vendor} makes it, and training here needs an NVIDIA GPU (CUDA, NCCL)",
            otherwise=f"name an NVIDIA GPU, or, to plan all the same, {figures}",
        )
    if _SLICE.search(words):
        return UnknownHardware(f"GPU {name!r} is not in the table: it is only a part of a GPU", otherwise=figures)
    message = f"GPU {name!r} is not in the table of {', '.join(GPUS)}"
    return UnknownHardware(message, otherwise=figures, near=_near(name, words))


def _near(name: str, words: str) -> str | None:
    """The same chip with another memory, or what a misspelling probably means."""
    if _VARIANT.search(words):
        return None
    forms, stated = {"pcie", "nvl"}, set(words.split())
    same = [entry for entry in GPUS if _chip(entry) <= stated and _chip(entry) & forms == stated & forms]
    if same:
        return max(same, key=lambda entry: len(stated.intersection(entry.split("-"))))
    return None if _OTHER_CARD.search(words) else closest(_canonical(name), list(GPUS))


def _chip(entry: str) -> set[str]:
    """The words of an entry, without its memory."""
    return {word for word in entry.split("-") if not re.fullmatch(r"\d+gb", word)}


def _words(name: str) -> list[str]:
    joined = re.sub(r"(\d)\s+gb\b", r"\1gb", name.lower())
    return [word for word in re.split(r"[^a-z0-9]+", joined) if word]


def _canonical(name: str) -> str:
    """`nvidia_a100-sxm4-80gb` → `a100-80gb`; memory and form factor are omitted if no two entries differ in them."""
    words = [word for word in _words(name) if word not in _FILLERS]
    joined = "-".join(words)
    if _SLICE.search(" ".join(words)):
        return joined
    for candidate in (joined, re.sub(r"-(\d+)gb?(?=-|$)", "", joined)):
        found = ALIASES.get(candidate, candidate)
        for entry in (found, found.removesuffix("-pcie")):
            if entry in GPUS and (entry == found or "pcie" in GPUS[entry].link) and _has_memory(entry, joined):
                return entry
    return joined


def _has_memory(entry: str, words: str) -> bool:
    """Whether the gigabytes in a name, if any, are the nominal size of this GPU."""
    stated = re.search(r"(?:^|-)(\d+)gb?(?=-|$)", words)
    if stated is None or words in (entry, *ALIASES):
        return True
    return 0.9 < GPUS[entry].memory / 2**30 / int(stated[1]) <= 1


def _check_overrides(name: str, overrides: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(Gpu) if field.name not in ("name", "source")]
    for key, value in overrides.items():
        if key not in known:
            raise PlanError(
                f"GPU {name!r}: {key!r} is no figure of a GPU",
                hint=_did_you_mean(closest(key, known)) + f"known are {', '.join(known)}",
            )
        if key == "link":
            link(value)
        elif key != "dtype" and not (isinstance(value, (int, float)) and 0 < value < float("inf")):
            raise PlanError(f"GPU {name!r}: {key} must be a positive number, not {value!r}", hint=f"e.g. {key}: 80e9")


def _source(source: str, overrides: Mapping[str, Any]) -> str:
    return f"{source}; {', '.join(overrides)} given" if overrides else source


def _did_you_mean(near: str | None) -> str:
    return f"did you mean {near}? Otherwise " if near else ""
