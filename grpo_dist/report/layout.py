"""What a run was done on, in words."""

from __future__ import annotations

from grpo_dist.report.numbers import plural
from grpo_dist.report.record import RunRecord

STRATEGIES = {
    "ddp": "DDP",
    "zero1": "DeepSpeed ZeRO-1",
    "zero2": "DeepSpeed ZeRO-2",
    "zero3": "DeepSpeed ZeRO-3",
    "fsdp2": "FSDP2",
}
DEVICES = {"cpu": "CPU", "cuda": "GPU"}


def layout(record: RunRecord) -> tuple[str, ...]:
    """Processes, how they share the work and on what, and what generates: "2 processes", "DDP on CPU", "transformers".

    Without what plan.json does not say; () when it says nothing.
    """
    size = record.planned("batch.num_processes")
    parts = (plural(size, "process", "processes") if size else "", _shared(record), record.planned("backend"))
    return tuple(str(part) for part in parts if part)


def _shared(record: RunRecord) -> str:
    """One process has nobody to share with: there it is the device alone."""
    device = DEVICES.get(record.planned("topology.device"), "")
    if record.planned("distributed_type") == "NO":
        return device
    shared = STRATEGIES.get(record.planned("strategy"), "")
    return " on ".join(part for part in (shared, device) if part)
