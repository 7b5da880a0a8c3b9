"""What all benchmarks have in common: the machine by its name, and a result where it belongs."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def publish(name: str, what: str, measured: dict[str, Any], *, packages: tuple[str, ...], cuda: bool = False) -> None:
    """Print a result as JSON and write it to `benchmarks/results/NAME-MACHINE.json`.

    Args:
        packages: whose versions it depends on.
        cuda: it was measured on the GPU.
    """
    device = torch.cuda.get_device_name() if cuda else processor()
    result = {
        "what": what,
        "device": device,
        "versions": {package: version(package) for package in packages},
        "date": datetime.now(UTC).date().isoformat(),
        **measured,
    }
    text = json.dumps(result, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}-{_slug(device)}.json").write_text(text + "\n")
    print(text)


def say(line: str) -> None:
    """Progress, for a reader."""
    print(line, file=sys.stderr, flush=True)


def processor() -> str:
    """The processor as it names itself."""
    lines: Iterator[str] = iter(())
    if sys.platform == "linux":
        lines = iter(Path("/proc/cpuinfo").read_text().splitlines())
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
