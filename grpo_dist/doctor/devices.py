"""Checks of the driver, of PyTorch's CUDA, and of the GPUs and their free memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from grpo_dist.doctor.case import DoctorContext, output
from grpo_dist.findings import Finding
from grpo_dist.text import gib

IMPORT_SECONDS = 120.0
"""Importing PyTorch from a slow file system takes long."""
BUSY = 0.05
"""Share of a GPU's memory that other processes may use without a warning."""
ON_CPU = "to train on the CPU: --set cluster.gpus_per_node=0"


def findings(context: DoctorContext) -> Iterator[Finding]:
    driver = _driver()
    if driver is not None:
        yield Finding("driver", "ok", f"NVIDIA driver {driver}")
    elif context.wants_gpus:
        yield Finding("driver", "error", "nvidia-smi does not answer: no NVIDIA driver", f"load it, or {ON_CPU}")
    if context.plan and not context.here and not context.plan.topology.on_cpu:
        yield Finding("gpus", "ok", "those of the job's nodes; each node is examined when the job starts")
        return
    seen = seen_by_torch(context.environ)
    if isinstance(seen, Finding):
        yield seen
    elif seen is not None:
        yield from _cuda(context, seen, driver)
        yield from _gpus(context, seen)


def _driver() -> str | None:
    printed = output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return printed.split()[0] if printed and printed.split() else None


def seen_by_torch(environ: Mapping[str, str]) -> dict[str, Any] | Finding | None:
    """What PyTorch sees; a finding if it cannot be imported, None if it is not installed (`packages` reports that)."""
    from importlib.util import find_spec

    if find_spec("torch") is None:
        return None
    argv = [sys.executable, "-m", "grpo_dist.training.common.device_probe"]
    try:
        done = subprocess.run(
            argv, env=dict(environ), capture_output=True, text=True, timeout=IMPORT_SECONDS, check=True
        )
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        reason = str(error)
    return Finding(
        "torch-import", "error", f"PyTorch cannot be imported: {reason}", "pip install --force-reinstall torch"
    )


def _cuda(context: DoctorContext, seen: Mapping[str, Any], driver: str | None) -> Iterator[Finding]:
    build = seen["cuda_build"]
    if seen["available"]:
        nccl = ".".join(map(str, seen["nccl"] or ()))
        yield Finding("cuda", "ok", f"PyTorch {seen['torch']}, CUDA {build}, NCCL {nccl}")
        if context.config and context.config.model.dtype == "bfloat16" and context.wants_gpus and not seen["bfloat16"]:
            yield Finding("dtype", "error", "this GPU has no bfloat16", "--set model.dtype=float16")
        return
    status = "error" if context.wants_gpus else "ok"
    if build is None:
        what = f"PyTorch {seen['torch']} is a build for CPUs"
        hint = f"pip install --force-reinstall torch (its default build has CUDA), or {ON_CPU}"
    else:
        what = f"PyTorch {seen['torch']} is built for CUDA {build} and sees no GPU"
        reason = "CUDA_VISIBLE_DEVICES, or a driver older than that CUDA" if driver else "there is no driver"
        hint = f"{reason}: nvidia-smi; or {ON_CPU}"
    yield Finding("cuda", status, what, hint if status == "error" else None)


def _gpus(context: DoctorContext, seen: Mapping[str, Any]) -> Iterator[Finding]:
    gpus, wanted = seen["gpus"], context.wants_gpus
    if len(gpus) < wanted:
        yield Finding(
            "gpus",
            "error",
            f"{len(gpus)} of the {wanted} GPUs planned for this machine are seen",
            f"--set cluster.gpus_per_node={len(gpus)}",
        )
    needed = _needed_bytes(context)
    users = _users() if gpus else ""
    for index, gpu in enumerate(gpus):
        name = f"gpu-{index}"
        what = f"{gpu['name']}, {gib(gpu['free'])} of {gib(gpu['total'])} free"
        used = 1 - gpu["free"] / gpu["total"]
        if index < wanted and needed and gpu["free"] < needed:
            hint = f"end what uses it{users}, or see grpo-dist plan CONFIG for settings that need less"
            yield Finding(name, "error", f"{what}; the plan needs {gib(needed)}", hint)
        elif used > BUSY:
            yield Finding(name, "warning", f"{what}; other processes use it", f"nvidia-smi{users}")
        else:
            yield Finding(name, "ok", what)


def _needed_bytes(context: DoctorContext) -> int | None:
    """The most memory that any role of the plan uses on one GPU."""
    if context.plan is None or context.plan.memory is None:
        return None
    return max(role["total_bytes"] for role in context.plan.memory["roles"].values())


def _users() -> str:
    printed = output("nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader")
    lines = [" ".join(line.split()) for line in (printed or "").splitlines() if line.strip()]
    return f" ({'; '.join(lines[:8])})" if lines else ""
